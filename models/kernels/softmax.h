// Numbers to weights that add up to 1, LANES at a time.

#ifndef SOFTMAX_H
#define SOFTMAX_H

#include "rows.h"

INLINE vec select_greater(vec a, vec b, vec then, vec otherwise) {
    bits mask = (bits)(a > b);
    return (vec)((mask & (bits)then) | (~mask & (bits)otherwise));
}

INLINE vec all(float f) { return f - (vec){0}; }

// e^x to 2 units in the last place; 0 below -87, as if x were 88 above it.
INLINE vec exp_of(vec x) {
    vec below = x;
    x = select_greater(x, all(88.0f), all(88.0f), x);
    x = select_greater(x, all(-87.0f), x, all(-87.0f));
    vec rounder = all(12582912.0f);  // adding 1.5 * 2^23 leaves no room for fractions
    vec n = x * all(1.44269504f) + rounder;
    bits exponent = (bits)n << 23;
    n -= rounder;
    x = x - n * all(0.693359375f) + n * all(2.12194440e-4f);
    vec y = all(1.9875691500e-4f);
    y = y * x + all(1.3981999507e-3f);
    y = y * x + all(8.3334519073e-3f);
    y = y * x + all(4.1665795894e-2f);
    y = y * x + all(1.6666665459e-1f);
    y = y * x + all(5.0000001201e-1f);
    y = y * (x * x) + x + all(1.0f);
    y = (vec)((bits)y + exponent);
    return select_greater(below, all(-87.0f), y, all(0.0f));
}

// Scores to weights that add up to 1 when multiplied with what is returned; 0 from `seen` to `end`.
static float soften(float *scores, long seen, long end) {
    for (long i = seen; i < end; i++) scores[i] = -INFINITY;
    long whole = end - end % LANES;
    vec most = all(-INFINITY), total = {0};
    float last[LANES];
    for (int i = 0; i < LANES; i++) last[i] = whole + i < end ? scores[whole + i] : -INFINITY;
    for (long k = 0; k < whole; k += LANES) {
        vec v = *(vec *)(scores + k);
        most = select_greater(v, most, v, most);
    }
    float largest = -INFINITY;
    for (int i = 0; i < LANES; i++) {
        if (most[i] > largest) largest = most[i];
        if (last[i] > largest) largest = last[i];
    }
    for (long k = 0; k < whole; k += LANES) {
        vec v = exp_of(*(vec *)(scores + k) - all(largest));
        *(vec *)(scores + k) = v;
        total += v;
    }
    vec v = exp_of(*(vec *)last - all(largest));
    memcpy(last, &v, sizeof v);
    for (int i = 0; whole + i < end; i++) scores[whole + i] = last[i];
    return 1.0f / sum_of(total + v);
}

#endif
