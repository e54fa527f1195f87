/* The weights of a convolution of 3x3, for `convolve` and back. */

#include "winograd.h"

/* Weights -> filters, in the layout of C tiles of O channels. */
void filters(const float *weight, float *u, long C, long threads, long O, long turned) {
#pragma omp parallel for num_threads(threads)
    for (long o = 0; o < O; o += 16)
        for (long c = 0; c < C; c++) {
            lanes g[9], all[36];
            for (int k = 0; k < 16; k++)
                for (int n = 0; n < 9; n++)
                    g[n][k] = weight[weight_at(n, c, o + k, C, O, turned)];
            filter_of(g, all);
            for (int n = 0; n < 36; n++)
                AT(u, place(C, O, n, c, o)) = all[n];
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
