/* Convolutions of 3x3 in float32. */

#include "winograd.h"

/* Write half of the 36 numbers of tile r, from k on, to v. */
static void gather(const float *const pixels[36], float *v, long r, long R, long C, long k) {
    for (long c = 0; c < C; c += 16) {
        lanes rows[3][6];
        rows_of(pixels, c, rows, k);
        for (int n = 0; n < 18; n++)
            AT(v, place(R, C, n, r, c)) = rows[n / 6][n % 6];
    }
}

/* The same for a gradient, to m: `wide` of its C channels. */
static void spread(const float *corner, float *m, long r, long R, long W, long C, long wide,
                   long k) {
    for (long c = 0; c < wide; c += 16) {
        lanes rows[3][6];
        rows_back(corner + c, W, C, rows, k);
        for (int n = 0; n < 18; n++)
            AT(m, place(R, wide, n, r, c)) = rows[n / 6][n % 6];
    }
}

/* sum (ROWS x 16 vectors) += a b, of ROWS x K floats a and K rows of b. The sums stay in registers:
   with ROWS = 8 and two vectors, 16 of 32. */
#define ROWS 8
INLINE void product(lanes sum[ROWS][2], const float *a, long a_row, long a_next, const float *b,
                    long b_next, long K, int vectors) {
    for (long k = 0; k < K; k++, a += a_next, b += b_next) {
        lanes right[2];
        for (int v = 0; v < vectors; v++)
            right[v] = AT(b, 16 * v);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < vectors; v++)
                sum[r][v] += a[r * a_row] * right[v];
    }
}

/* ROWS tiles r of v, times the filters n of 36 of a panel of O -> m; v begins with number k. */
INLINE void filtered(const float *v, const float *u, float *m, long n, long k, long r, long o,
                     long R, long C, long O, int vectors) {
    lanes sum[ROWS][2] = {0};
    for (long c = 0; c < C; c += PANEL) {
        const float *a = v + place(R, C, n - k, r, c), *b = u + place(C, O, n, c, o);
        product(sum, a, width(C, c), 1, b, 16 * vectors, width(C, c), vectors);
    }
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < vectors; i++)
            AT(m, place(R, O, n, r + row, o + 16 * i)) = sum[row][i];
}

/* ROWS channels c of v, times a panel of m, over so many tiles: added to the panel at o of du. */
INLINE void correlated(const float *v, const float *m, float *du, long n, long k, long c, long o,
                       long tiles, long R, long C, long O, int vectors, int begin) {
    lanes sum[ROWS][2] = {0};
    for (int row = 0; row < ROWS && !begin; row++)
        for (int i = 0; i < vectors; i++)
            sum[row][i] = AT(du, place(C, O, n, c + row, o + 16 * i));
    product(sum, v + place(R, C, n - k, 0, c), 1, width(C, c), m, 16 * vectors, tiles, vectors);
    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < vectors; i++)
            AT(du, place(C, O, n, c + row, o + 16 * i)) = sum[row][i];
}

/* y = (x * filters + bias + skip) factor; bias and skip may be null. A thread does R tiles, a
   multiple of ROWS, at a time, in its own cache, and half of each at a time. */
void convolve(const float *x, const float *u, const float *bias, const float *skip, float *y,
              float *room, long B, long threads, long H, long W, long C, long O, long R, long each,
              float factor) {
    long T = B * (H / 4) * (W / 4);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long first = 0; first < T; first += R) {
        long count = T - first < R ? T - first : R;
        float *v = own(room, each), *m = v + 18 * apart(R, C);
        const float *(*pixels)[36] = (void *)(m + 36 * apart(R, O));
        for (long r = 0; r < count; r++)
            look_around(x, first + r, pixels[r], H, W, C);
        for (long k = 0; k < 36; k += 18) {
            for (long r = 0; r < count; r++)
                gather(pixels[r], v, r, R, C, k);
            for (long n = k; n < k + 18; n++)
                for (long o = 0; o < O; o += PANEL)
                    for (long r = 0; r < count; r += ROWS)
                        if (width(O, o) == PANEL)
                            filtered(v, u, m, n, k, r, o, R, C, O, 2);
                        else
                            filtered(v, u, m, n, k, r, o, R, C, O, 1);
        }
        for (long r = 0; r < count; r++)
            scatter(m, r, R, bias, skip, y, first + r, H, W, O, factor);
    }
}

/* What one thread does of `convolve_back`: half k (0 or 18) of the 36 numbers, channels o .. o +
   wide - 1 of dy, a whole number of panels or all that are left. */
static void correlate(const float *x, const float *dy, float *du, float *dbias, float *v, long T,
                      long H, long W, long C, long O, long R, long k, long o, long wide) {
    float *m = v + 18 * apart(R, C);
    for (long first = 0; first < T; first += R) {
        long count = T - first < R ? T - first : R;
        for (long r = 0; r < count; r++) {
            const float *pixels[36];
            long t = first + r;
            CORNER;
            look_around(x, t, pixels, H, W, C);
            gather(pixels, v, r, R, C, k);
            spread(dy + ((b * H + top) * W + left) * O + o, m, r, R, W, O, wide, k);
        }
        for (long n = k; n < k + 18; n++)
            for (long p = 0; p < wide; p += PANEL) {
                const float *panel = m + place(R, wide, n - k, 0, p);
                for (long c = 0; c < C; c += ROWS)
                    if (width(O, o + p) == PANEL)
                        correlated(v, panel, du, n, k, c, o + p, count, R, C, O, 2, first == 0);
                    else
                        correlated(v, panel, du, n, k, c, o + p, count, R, C, O, 1, first == 0);
            }
        for (long p = 0; p < wide && !k; p += 16) { /* number 7 is a tile's sum */
            lanes sum = first ? AT(dbias, o + p) : (lanes){0};
            for (long r = 0; r < count; r++)
                sum += AT(m, place(R, wide, 7, r, p));
            AT(dbias, o + p) = sum;
        }
    }
}

/* The gradients of `convolve`'s filters and bias (O), for a gradient dy of y, R tiles at a time. No
   two threads add to the same sum, so the bits do not depend on their number. */
void convolve_back(const float *x, const float *dy, float *du, float *dbias, float *room, long B,
                   long threads, long H, long W, long C, long O, long R, long each) {
    long wide = share_of(O, threads);
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long k = 0; k < 36; k += 18)
        for (long o = 0; o < O; o += wide)
            correlate(x, dy, du, dbias, own(room, each), B * (H / 4) * (W / 4), H, W, C, O, R, k,
                      o, O - o < wide ? O - o : wide);
}
