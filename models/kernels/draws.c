// Tokens drawn from the softmax of logits, and drafts that stand for such draws. models/kernels/draws.py calls it.

#include "softmax.h"

#define SUMMED 1024  // numbers that are looked at one by one

// The softmax of n logits divided by the temperature.
static void distribution(float *p, const void *logits, int narrow, float temperature, long n) {
    widen(p, logits, narrow, n);
    for (long i = 0; i < n; i++) p[i] /= temperature;
    float norm = soften(p, n, n);
    for (long i = 0; i < n; i++) p[i] *= norm;
}

static double sum_of_numbers(const float *w, long n) {
    double parts[8] = {0}, sum = 0;
    long whole = n - n % 8;
    for (long i = 0; i < whole; i += 8)
        for (int k = 0; k < 8; k++) parts[k] += w[i + k];
    for (long i = whole; i < n; i++) parts[i - whole] += w[i];
    for (int k = 0; k < 8; k++) sum += parts[k];
    return sum;
}

// Where u in [0, 1) lies in the running sum of n weights; never where the weight is 0, unless all are.
static long place_of(double u, const float *w, long n) {
    long parts = (n + SUMMED - 1) / SUMMED, part = 0;
    double sums[parts], total = 0, upto = 0;
    for (long i = 0, left = n; i < parts; i++, left -= SUMMED)
        total += sums[i] = sum_of_numbers(w + i * SUMMED, left < SUMMED ? left : SUMMED);
    while (part < parts - 1 && upto + sums[part] <= u * total) upto += sums[part++];
    long end = (part + 1) * SUMMED < n ? (part + 1) * SUMMED : n, last = 0;
    for (long i = part * SUMMED; i < end; i++)
        if ((upto += w[i]) > u * total && w[i] > 0) return i;
    for (long i = 0; i < end; i++)  // added up in another order, the sum of the part was larger by a rounding error
        if (w[i] > 0) last = i;
    return last;
}

// A token drawn from logits [n], which are bf16 if narrow, else fp32; p [n] is what it was drawn from.
long draw_token(const void *logits, int narrow, long n, float temperature, double u, float *p) {
    distribution(p, logits, narrow, temperature, n);
    return place_of(u, p, n);
}

// Rejection sampling: how many of d drafted tokens, drawn from q [d, n], stand for draws from what the full model's
// logits [d + 1, n] say; *next is the token after them. u [d] and u_next are uniform in [0, 1). Of the logits behind
// the first draft that is rejected nothing is computed. p [n] is room to work in.
long accept_drafts(const void *logits, int narrow, long n, float temperature, long d, const int64_t *drafted,
                   const float *q, const float *u, double u_next, float *p, int64_t *next) {
    long i = 0;
    for (;; i++) {
        distribution(p, (const char *)logits + i * n * (narrow ? 2 : 4), narrow, temperature, n);
        if (i == d || !(u[i] * q[i * n + drafted[i]] < p[drafted[i]])) break;
    }
    if (i < d) {
        const float *q_i = q + i * n;
        int differ = 0;  // where they do not, a rejection can only be a rounding error
        for (long k = 0; k < n; k++) differ |= p[k] > q_i[k];
        for (long k = 0; differ && k < n; k++) p[k] = p[k] > q_i[k] ? p[k] - q_i[k] : 0;
    }
    *next = place_of(u_next, p, n);
    return i;
}
