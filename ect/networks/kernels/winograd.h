/* Winograd's F(4x4, 3x3) (Lavin and Gray 2016): the 6x6 pixels around a tile of 4x4 become 36
   numbers for each channel, which are multiplied, number by number and for many tiles at once, with
   what the nine weights become; the products become 4x4 pixels. */

#include "vectors.h"

/* B^T of F(4, 3): six pixels in a row -> six products' left factors. */
INLINE void into(const lanes d[6], lanes *v, int out) {
    lanes p = d[4] - 4 * d[2], q = d[3] - 4 * d[1];
    lanes r = d[4] - d[2], s = 2 * (d[3] - d[1]);
    v[0] = 4 * d[0] - 5 * d[2] + d[4];
    v[out] = p + q;
    v[2 * out] = p - q;
    v[3 * out] = r + s;
    v[4 * out] = r - s;
    v[5 * out] = 4 * d[1] - 5 * d[3] + d[5];
}

/* A^T: six products -> four pixels of the result. */
INLINE void out_of(const lanes m[6], lanes *y, int out) {
    lanes p = m[1] + m[2], q = m[1] - m[2];
    lanes r = m[3] + m[4], s = m[3] - m[4];
    y[0] = m[0] + p + r;
    y[out] = q + 2 * s;
    y[2 * out] = p + 4 * r;
    y[3 * out] = q + 8 * s + m[5];
}

/* A: the adjoint of `out_of`, which the gradient of the weights needs. */
INLINE void back_into(const lanes y[4], lanes *m, int out) {
    lanes even = y[0] + y[2], odd = y[1] + y[3];
    lanes even2 = y[0] + 4 * y[2], odd2 = 2 * y[1] + 8 * y[3];
    m[0] = y[0];
    m[out] = even + odd;
    m[2 * out] = even - odd;
    m[3 * out] = even2 + odd2;
    m[4 * out] = even2 - odd2;
    m[5 * out] = y[3];
}

/* The image and the corner of tile number t of 4x4 pixels. */
#define CORNER                                                                                     \
    long columns = W / 4, tiles = H / 4 * columns;                                                 \
    long b = t / tiles, top = t % tiles / columns * 4, left = t % columns * 4

/* The channels of the 6x6 pixels of x around tile t; zeros outside of the image. */
static inline void look_around(const float *x, long t, const float *pixels[36], long H, long W,
                               long C) {
    static const float nothing[MOST];
    CORNER;
    for (int k = 0; k < 6; k++)
        for (int l = 0; l < 6; l++) {
            long row = top + k - 1, column = left + l - 1;
            int inside = row >= 0 && row < H && column >= 0 && column < W;
            pixels[6 * k + l] = inside ? x + ((b * H + row) * W + column) * C : nothing;
        }
}

/* Rows k .. k + 2 of six of a transformed tile, of 16 channels. */
INLINE void rows_at(const float *const pixels[36], long c, lanes rows[3][6], int k) {
    lanes half[6][6];
    for (int l = 0; l < 6; l++) {
        lanes column[6];
        for (int row = 0; row < 6; row++)
            column[row] = AT(pixels[6 * row + l], c);
        into(column, &half[0][l], 6);
    }
    for (int row = 0; row < 3; row++)
        into(half[k + row], rows[row], 1);
}

/* Half of the 36 numbers, from k (0 or 18) on. */
INLINE void rows_of(const float *const pixels[36], long c, lanes rows[3][6], long k) {
    if (k)
        rows_at(pixels, c, rows, 3);
    else
        rows_at(pixels, c, rows, 0);
}

/* The same two for the adjoint of `scatter`: a tile whose first pixel is `corner`. */
INLINE void rows_back_at(const float *corner, long W, long C, lanes rows[3][6], int k) {
    lanes half[6][4];
    for (int l = 0; l < 4; l++) {
        lanes column[4];
        for (int row = 0; row < 4; row++)
            column[row] = AT(corner, (row * W + l) * C);
        back_into(column, &half[0][l], 4);
    }
    for (int row = 0; row < 3; row++)
        back_into(half[k + row], rows[row], 1);
}
INLINE void rows_back(const float *corner, long W, long C, lanes rows[3][6], long k) {
    if (k)
        rows_back_at(corner, W, C, rows, 3);
    else
        rows_back_at(corner, W, C, rows, 0);
}

/* Tile r of m -> the 4x4 pixels of tile t; then a bias, a skip connection, a factor. */
static inline void scatter(const float *m, long r, long R, const float *bias, const float *skip,
                           float *y, long t, long H, long W, long C, float factor) {
    CORNER;
    for (long c = 0; c < C; c += 16) {
        lanes d[6], half[24], sum = {0};
        if (bias)
            sum = AT(bias, c);
        const float *from = m + place(R, C, 0, r, c);
        for (int l = 0; l < 6; l++) {
            for (int k = 0; k < 6; k++)
                d[k] = AT(from, (6 * k + l) * apart(R, C));
            out_of(d, half + l, 6);
        }
        for (int k = 0; k < 4; k++) {
            out_of(half + 6 * k, d, 1);
            for (int l = 0; l < 4; l++) {
                long pixel = ((b * H + top + k) * W + left + l) * C + c;
                lanes value = d[l] + sum;
                if (skip)
                    value += AT(skip, pixel);
                AT(y, pixel) = value * factor;
            }
        }
    }
}

/* G of F(4, 3): three weights in a row -> six products' right factors. */
INLINE void filter(const lanes *g, lanes *u, int in, int out) {
    lanes even = (g[0] + g[2 * in]) / 6, odd = g[in] / 6;
    lanes even2 = (g[0] + 4 * g[2 * in]) / 24, odd2 = g[in] / 12;
    u[0] = g[0] / 4;
    u[out] = -even - odd;
    u[2 * out] = odd - even;
    u[3 * out] = even2 + odd2;
    u[4 * out] = even2 - odd2;
    u[5 * out] = g[2 * in];
}

/* Its adjoint. */
INLINE void filter_back(const lanes *u, lanes *g, int in, int out) {
    lanes even = (u[in] + u[2 * in]) / 6, even2 = (u[3 * in] + u[4 * in]) / 24;
    g[0] = u[0] / 4 - even + even2;
    g[out] = (u[2 * in] - u[in]) / 6 + (u[3 * in] - u[4 * in]) / 12;
    g[2 * out] = u[5 * in] - even + 4 * even2;
}

/* Where the weight n of nine from channel c to o lies in (O, 3, 3, C); or, where `turned`, in
   (C, 3, 3, O), last to first: the weights of the gradient of x. */
INLINE long weight_at(long n, long c, long o, long C, long O, int turned) {
    return turned ? (c * 9 + 8 - n) * O + o : (o * 9 + n) * C + c;
}

/* Nine weights -> the 36 numbers. */
INLINE void filter_of(const lanes g[9], lanes u[36]) {
    lanes half[18];
    for (int l = 0; l < 3; l++)
        filter(g + l, half + l, 3, 3);
    for (int k = 0; k < 6; k++)
        filter(half + 3 * k, u + 6 * k, 1, 1);
}

/* Channels of O for each thread, if half of the threads share each half of the 36 numbers. */
INLINE long share_of(long O, long threads) {
    long panels = (O + PANEL - 1) / PANEL, parts = threads / 2 < 1 ? 1 : threads / 2;
    return (panels + parts - 1) / parts * PANEL;
}
