/* Kernels of ect/native.py. Features are (B, H, W, C) floats, C a multiple of 16; a call does the
   images first .. last - 1, so that threads can share a batch. */

#include <math.h>
#include <stdint.h>

typedef float lanes __attribute__((vector_size(64), aligned(4)));
typedef uint32_t words __attribute__((vector_size(64), aligned(4)));

#define AT(pointer, index) (*(lanes *)((pointer) + (index)))
#define MOST 4096 /* channels */

/* B^T of F(4, 3): six pixels in a row -> six products' left factors. */
static inline void into(const lanes *d, lanes *v, int in, int out) {
    lanes p = d[4 * in] - 4 * d[2 * in], q = d[3 * in] - 4 * d[in];
    lanes r = d[4 * in] - d[2 * in], s = 2 * (d[3 * in] - d[in]);
    v[0] = 4 * d[0] - 5 * d[2 * in] + d[4 * in];
    v[out] = p + q;
    v[2 * out] = p - q;
    v[3 * out] = r + s;
    v[4 * out] = r - s;
    v[5 * out] = 4 * d[in] - 5 * d[3 * in] + d[5 * in];
}

/* A^T: six products -> four pixels of the result. */
static inline void out_of(const lanes *m, lanes *y, int in, int out) {
    lanes p = m[in] + m[2 * in], q = m[in] - m[2 * in];
    lanes r = m[3 * in] + m[4 * in], s = m[3 * in] - m[4 * in];
    y[0] = m[0] + p + r;
    y[out] = q + 2 * s;
    y[2 * out] = p + 4 * r;
    y[3 * out] = q + 8 * s + m[5 * in];
}

/* A: the adjoint of `out_of`, which the gradient of the weights needs. */
static inline void back_into(const lanes *y, lanes *m, int in, int out) {
    lanes even = y[0] + y[2 * in], odd = y[in] + y[3 * in];
    lanes even2 = y[0] + 4 * y[2 * in], odd2 = 2 * y[in] + 8 * y[3 * in];
    m[0] = y[0];
    m[out] = even + odd;
    m[2 * out] = even - odd;
    m[3 * out] = even2 + odd2;
    m[4 * out] = even2 - odd2;
    m[5 * out] = y[3 * in];
}

#define EACH_TILE                                                                                  \
    long rows = H / 4, columns = W / 4, T = images * rows * columns;                               \
    for (long b = first; b < last; b++)                                                            \
        for (long i = 0; i < rows; i++)                                                            \
            for (long j = 0; j < columns; j++)                                                     \
                for (long c = 0, t = (b * rows + i) * columns + j; c < C; c += 16)

/* x -> v (36, T, C): the tiles of 6x6 that overlap by two, zeros outside of the image. */
void gather(const float *x, float *v, long images, long first, long last, long H, long W, long C) {
    EACH_TILE {
        lanes d[36], half[36];
        for (int k = 0; k < 6; k++)
            for (int l = 0; l < 6; l++) {
                long row = 4 * i + k - 1, column = 4 * j + l - 1;
                int inside = row >= 0 && row < H && column >= 0 && column < W;
                d[6 * k + l] = (lanes){0};
                if (inside)
                    d[6 * k + l] = AT(x, ((b * H + row) * W + column) * C + c);
            }
        for (int l = 0; l < 6; l++)
            into(d + l, half + l, 6, 6);
        for (int k = 0; k < 6; k++)
            into(half + 6 * k, d + 6 * k, 1, 1);
        for (int n = 0; n < 36; n++)
            AT(v, (n * T + t) * C + c) = d[n];
    }
}

/* m (36, T, C) -> y, the tiles of 4x4 side by side; then a bias, a skip connection, a factor. */
void scatter(const float *m, const float *bias, const float *skip, float *y, long images,
             long first, long last, long H, long W, long C, float factor) {
    EACH_TILE {
        lanes d[36], half[24], sum = {0};
        if (bias)
            sum = AT(bias, c);
        for (int n = 0; n < 36; n++)
            d[n] = AT(m, (n * T + t) * C + c);
        for (int l = 0; l < 6; l++)
            out_of(d + l, half + l, 6, 6);
        for (int k = 0; k < 4; k++)
            out_of(half + 6 * k, d + 4 * k, 1, 1);
        for (int n = 0; n < 16; n++) {
            long row = 4 * i + n / 4, column = 4 * j + n % 4;
            long place = ((b * H + row) * W + column) * C + c;
            lanes value = d[n] + sum;
            if (skip)
                value = (value + AT(skip, place)) * factor;
            AT(y, place) = value;
        }
    }
}

/* The adjoint of `scatter`: y -> m (36, T, C). */
void spread(const float *y, float *m, long images, long first, long last, long H, long W, long C) {
    EACH_TILE {
        lanes d[16], half[24], full[36];
        for (int n = 0; n < 16; n++)
            d[n] = AT(y, ((b * H + 4 * i + n / 4) * W + 4 * j + n % 4) * C + c);
        for (int l = 0; l < 4; l++)
            back_into(d + l, half + l, 4, 4);
        for (int k = 0; k < 6; k++)
            back_into(half + 4 * k, full + 6 * k, 1, 1);
        for (int n = 0; n < 36; n++)
            AT(m, (n * T + t) * C + c) = full[n];
    }
}

/* a where a comparison holds, else b. */
static inline lanes chosen(words holds, lanes a, lanes b) {
    return (lanes)((holds & (words)a) | (~holds & (words)b));
}

/* exp to a few units in the last place: 2^n times a polynomial on |f| <= ln 2 / 2. */
static inline lanes exponential(lanes x) {
    lanes most = (lanes){0} + 87;
    x = chosen((words)(x < -most), -most, chosen((words)(x > most), most, x));
    lanes n = x * 1.44269504f + 12582912.0f;
    words power = ((words)n + 127u) << 23;
    n -= 12582912.0f;
    lanes f = x - n * 0.693145752f - n * 1.42860677e-6f;
    lanes p = f * (1 / 720.0f) + 1 / 120.0f;
    p = ((((p * f + 1 / 24.0f) * f + 1 / 6.0f) * f + 0.5f) * f + 1) * f + 1;
    return p * (lanes)power;
}

static inline words mixed(words h) {
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
}

/* The mask of dropout, over its mean, at 16 places from `index` on: a function of these alone. */
static inline lanes mask(long index, uint32_t seed, float p) {
    words h = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    h = mixed(mixed(h + (uint32_t)index) ^ seed) >> 8;
    lanes none = {0};
    return chosen((words)(h >= (uint32_t)(p * 16777216.0f)), none + 1 / (1 - p), none);
}

/* y = dropout(silu(norm(x + features))); P pixels, G groups; p = 0 is no dropout. The mean and
   the deviation's inverse of each group go to stats (B, 2, C). */
void activate(const float *x, const float *features, const float *gain, const float *bias, float *y,
              float *stats, long images, long first, long last, long P, long C, long G, long seed,
              float eps, float p) {
    for (long b = first; b < last; b++) {
        const float *in = x + b * P * C;
        float told[MOST] = {0}, *mean = stats + b * 2 * C, *inverse = mean + C;
        for (long c = 0; features && c < C; c++)
            told[c] = features[b * C + c];
        for (int moment = 1; moment <= 2; moment++) {
            float sums[MOST] = {0};
            for (long i = 0; i < P * C; i += C)
                for (long c = 0; c < C; c += 16) {
                    lanes value = AT(in, i + c) + AT(told, c);
                    lanes off = moment == 2 ? value - AT(mean, c) : value;
                    AT(sums, c) += moment == 2 ? off * off : value;
                }
            for (long g = 0, n = C / G; g < G; g++) {
                double sum = 0;
                for (long c = g * n; c < (g + 1) * n; c++)
                    sum += sums[c];
                for (long c = g * n; c < (g + 1) * n; c++)
                    if (moment == 1)
                        mean[c] = sum / (n * P);
                    else
                        inverse[c] = 1 / sqrt(sum / (n * P) + eps);
            }
        }
        for (long i = 0; i < P * C; i += C)
            for (long c = 0; c < C; c += 16) {
                lanes unit = (AT(in, i + c) + AT(told, c) - AT(mean, c)) * AT(inverse, c);
                lanes z = unit * AT(gain, c) + AT(bias, c);
                z /= 1 + exponential(-z);
                AT(y, b * P * C + i + c) = p > 0 ? z * mask(b * P * C + i + c, seed, p) : z;
            }
    }
}

/* The gradient of `activate`: dx, and for each image (B, C) those of gain, bias and features. */
void activate_back(const float *x, const float *features, const float *gain, const float *bias,
                   const float *stats, const float *dy, float *dx, float *dgain, float *dbias,
                   float *dfeatures, long images, long first, long last, long P, long C, long G,
                   long seed, float eps, float p) {
    for (long b = first; b < last; b++) {
        const float *mean = stats + b * 2 * C, *inverse = mean + C;
        float told[MOST] = {0}, along[MOST], across[MOST];
        float *gains = dgain + b * C, *biases = dbias + b * C, *sums = dfeatures + b * C;
        for (long c = 0; c < C; c++) {
            told[c] = (features ? features[b * C + c] : 0) - mean[c];
            gains[c] = biases[c] = sums[c] = 0;
        }
        for (long i = b * P * C; i < (b + 1) * P * C; i += C)
            for (long c = 0; c < C; c += 16) {
                lanes unit = (AT(x, i + c) + AT(told, c)) * AT(inverse, c);
                lanes z = unit * AT(gain, c) + AT(bias, c), share = 1 / (1 + exponential(-z));
                lanes dz = AT(dy, i + c) * share * (1 + z * (1 - share));
                dz = p > 0 ? dz * mask(i + c, seed, p) : dz;
                AT(dx, i + c) = dz;
                AT(gains, c) += dz * unit;
                AT(biases, c) += dz;
            }
        for (long g = 0, n = C / G; g < G; g++) {
            double both[2] = {0, 0};
            for (long c = g * n; c < (g + 1) * n; c++) {
                both[0] += (double)gain[c] * biases[c] / (n * P);
                both[1] += (double)gain[c] * gains[c] / (n * P);
            }
            for (long c = g * n; c < (g + 1) * n; c++)
                along[c] = both[0], across[c] = both[1];
        }
        for (long i = b * P * C; i < (b + 1) * P * C; i += C)
            for (long c = 0; c < C; c += 16) {
                lanes unit = (AT(x, i + c) + AT(told, c)) * AT(inverse, c);
                lanes part = AT(dx, i + c) * AT(gain, c) - AT(along, c) - unit * AT(across, c);
                AT(dx, i + c) = part * AT(inverse, c);
                AT(sums, c) += part * AT(inverse, c);
            }
    }
}
