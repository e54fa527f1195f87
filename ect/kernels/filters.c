/* The weights of a convolution of 3x3, for `convolve` and back. */

#include "winograd.h"

/* Weights -> filters, which lie as C tiles of O channels do; or, where `split`, as 36 operands on
   the right, of C numbers a row. */
void filters(const float *weight, void *u, long C, long threads, long O, long turned, long split) {
    long low = 36 * halves_of(O, C);
#pragma omp parallel for num_threads(threads)
    for (long o = 0; o < O; o += 16)
        for (long c = 0; c < C; c++) {
            lanes all[36];
            filter_of(weight, all, c, o, C, O, turned);
            for (int n = 0; n < 36; n++)
                if (split)
                    pair((uint16_t *)u + n * halves_of(O, C) + o * C + c / 2 * 32, low, all[n], c);
                else
                    AT((float *)u, place(C, O, n, c, o)) = all[n];
        }
}

/* The adjoint of `filters`: u -> the gradient of weights (O, 3, 3, C). */
void filters_back(const float *u, float *weight, long C, long threads, long O) {
#pragma omp parallel for num_threads(threads)
    for (long o = 0; o < O; o += 16)
        for (long c = 0; c < C; c++) {
            lanes g[9], half[18], full[6];
            for (int k = 0; k < 6; k++) {
                for (int l = 0; l < 6; l++)
                    full[l] = AT(u, place(C, O, 6 * k + l, c, o));
                filter_back(full, half + 3 * k, 1, 1);
            }
            for (int l = 0; l < 3; l++)
                filter_back(half + l, g + l, 3, 3);
            for (int k = 0; k < 16; k++)
                for (int n = 0; n < 9; n++)
                    weight[weight_at(n, c, o + k, C, O, 0)] = g[n][k];
        }
}
