// A few rows times a weight, for CPUs (rows.h). models/kernels/few_rows.py calls it and states the shapes.

#include "rows.h"

// Returns 0, or -1 where there is no memory.
int few_rows(int kind, const void *x, long rows, const void *w, const void *scale, long n_out, long n_in,
             const void *residual, void *out, int threads) {
    if (!rows) return 0;
    struct Product p = {(enum Kind)kind, rows, n_out, n_in, x, w, scale, residual, out, kind != F32, 0};
    float *wide = NULL;
    if (kind != F32) {
        const uint16_t *narrow = x;
        if (!(wide = malloc((size_t)(rows * n_in) * 4))) return -1;
        for (long k = 0; k < rows * n_in; k += STEP)
            for (int i = 0; i < LANES; i++) {
                wide[k + i] = from_bf16(narrow[kind == BF16 ? k + 2 * i : k + i]);
                wide[k + LANES + i] = from_bf16(narrow[kind == BF16 ? k + 2 * i + 1 : k + LANES + i]);
            }
        p.x = wide;
    }
    if (n_out * n_in < 1 << 14) threads = 1;  // over before another thread has woken up
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long t = 0; t < n_tiles(&p); t++) tile_of_outputs(&p, t);
    free(wide);
    return 0;
}

// What n_in, and of blocks dim, head_dim and ffn_dim, must be multiples of.
int step(void) { return STEP; }
