// A few rows times a weight, for CPUs (rows.h). models/kernels/few_rows.py calls it and states the shapes.

#include "rows.h"

struct Norm {  // of the rows before the product
    float floor;
    const float *weight;  // [n_in], or NULL where it is in the product's
};

// Returns 0, or -1 where there is no memory. x and out are bf16 unless kind is F32; norm may be NULL.
int few_rows(int kind, const void *x, long rows, const void *w, const void *scale, long n_out, long n_in,
             const void *residual, void *out, const struct Norm *n, int threads) {
    if (!rows) return 0;
    struct Product p = {(enum Kind)kind, rows, n_out, n_in, x, w, scale, residual, out, kind != F32, 0};
    float *laid = NULL;
    if (n || kind != F32) {
        if (!(laid = malloc((size_t)(rows * n_in + n_in) * 4))) return -1;
        float *row = laid + rows * n_in;
        for (long r = 0; r < rows; r++) {
            widen(row, (const char *)x + r * n_in * (p.narrow ? 2 : 4), p.narrow, n_in);
            if (n) norm(p.kind, laid + r * n_in, row, n_in, n->floor, n->weight);
            else lay(p.kind, laid + r * n_in, row, n_in);
        }
        p.x = laid;
    }
    if (n_out * n_in < 1 << 14) threads = 1;  // over before another thread has woken up
#pragma omp parallel num_threads(threads) if (threads > 1)
    product(&p);
    free(laid);
    return 0;
}

// What n_in, and of blocks dim, head_dim and ffn_dim, must be multiples of.
int step(void) { return STEP; }
