/* dropout(silu(norm(x + features))) and its gradient: features are read and written once or twice,
   as floats, or as bfloat16 if `half` is set; the arithmetic is in float. */

#include <math.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "vectors.h"

/* Let freed memory stay with the process, for the next step: fresh pages cost a tenth of it. */
void keep_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
#endif
}

/* Sixteen features. */
INLINE lanes get(const void *x, long index, int half) {
    if (!half)
        return *(const lanes *)((const float *)x + index);
    const halves *sixteen = (const halves *)((const uint16_t *)x + index);
    return (lanes)(__builtin_convertvector(*sixteen, words) << 16);
}

INLINE void put(void *y, long index, lanes value, int half) {
    if (!half) {
        *(lanes *)((float *)y + index) = value;
        return;
    }
    *(halves *)((uint16_t *)y + index) = __builtin_convertvector(rounded(value), halves);
}

/* a where a comparison holds, else b. */
INLINE lanes chosen(words holds, lanes a, lanes b) {
    return (lanes)((holds & (words)a) | (~holds & (words)b));
}

/* exp to a few units in the last place: 2^n times a polynomial on |f| <= ln 2 / 2. */
INLINE lanes exponential(lanes x) {
    lanes most = (lanes){0} + 80;
    x = chosen((words)(x < -most), -most, chosen((words)(x > most), most, x));
    lanes n = x * 1.44269504f + 12582912.0f;
    words power = ((words)n + 127u) << 23;
    n -= 12582912.0f;
    lanes f = x - n * 0.693145752f - n * 1.42860677e-6f;
    lanes p = f * (1 / 720.0f) + 1 / 120.0f;
    p = ((((p * f + 1 / 24.0f) * f + 1 / 6.0f) * f + 0.5f) * f + 1) * f + 1;
    return p * (lanes)power;
}

/* 1 / (1 + exp(-z)), the quotient by Newton's method: a division takes four times as long. */
INLINE lanes logistic(lanes z) {
    lanes d = 1 + exponential(-z), r = (lanes)(0x7ef311c7u - (words)d);
    for (int step = 0; step < 3; step++)
        r = r * (2 - d * r);
    return r;
}

/* The dropout mask of `kept` in ect/networks/dropout.py, divided by its mean, for 16 hashes of places
   and an image's two keys. */
INLINE lanes mask(const uint32_t *places, const uint32_t *keys, int32_t least, float p) {
    words h = *(const words *)places * keys[0];
    h = (h ^ (h >> 16)) * keys[1];
    lanes none = {0};
    return chosen((words)((signs)h >= least), none + 1 / (1 - p), none);
}

/* Channels in vectors, pixels in runs short enough that their features stay in the first cache. */
#define RUNS                                                                                       \
    for (long first = 0; first < P; first += 16)                                                   \
        for (long c = 0; c < C; c += 16)
#define RUN for (long i = first; i < P && i < first + 16; i++)

/* For an image x (P pixels) + features (C): the shift to add, and then the factor to multiply with,
   to normalize it in G groups. */
INLINE void moments(const void *x, long image, const float *features, float *shift, float *inverse,
                    long P, long C, long G, float eps, int half) {
    float sums[MOST] = {0}, squares[MOST] = {0};
    long n = C / G;
    RUNS {
        lanes sum = {0};
        RUN sum += get(x, image + i * C + c, half);
        AT(sums, c) += sum;
    }
    for (long g = 0; g < G; g++) {
        double mean = 0;
        for (long c = g * n; c < (g + 1) * n; c++)
            mean += (double)sums[c] / P + (features ? features[c] : 0);
        for (long c = g * n; c < (g + 1) * n; c++)
            shift[c] = (features ? features[c] : 0) - mean / n;
    }
    RUNS {
        lanes sum = {0}, off = AT(shift, c);
        RUN {
            lanes value = get(x, image + i * C + c, half) + off;
            sum += value * value;
        }
        AT(squares, c) += sum;
    }
    for (long g = 0; g < G; g++) {
        double square = 0;
        for (long c = g * n; c < (g + 1) * n; c++)
            square += squares[c];
        for (long c = g * n; c < (g + 1) * n; c++)
            inverse[c] = 1 / sqrt(square / (n * P) + eps);
    }
}

INLINE void activate_image(const void *x, long image, const float *gain, const float *bias, void *y,
                           const float *shift, const float *inverse, const uint32_t *keys,
                           const uint32_t *places, long P, long C, int32_t least, int silu, float p,
                           int half) {
    RUNS {
        lanes slope = AT(inverse, c) * AT(gain, c), offset = AT(shift, c) * slope + AT(bias, c);
        RUN {
            long at = image + i * C + c;
            lanes z = get(x, at, half) * slope + offset;
            z = silu ? z * logistic(z) : z;
            put(y, at, p > 0 ? z * mask(places + i * C + c, keys, least, p) : z, half);
        }
    }
}

/* y = dropout(silu(norm(x + features))), of features (B, C) or none; no SiLU where `silu` is 0, no
   dropout where p is 0. stats (B, 2, C) is for the gradient. Dropout by keys (B, 2), hashes of places
   (P, C), and the least hash that is kept. */
void activate(const void *x, const float *features, const float *gain, const float *bias, void *y,
              float *stats, const uint32_t *keys, const uint32_t *places, long B, long threads,
              long half, long P, long C, long G, long silu, long least, float eps, float p) {
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++) {
        const float *told = features ? features + b * C : 0;
        const uint32_t *own_keys = keys ? keys + 2 * b : 0;
        float *shift = stats + 2 * b * C, *inverse = shift + C;
        long image = b * P * C;
#define ACTIVATE(half)                                                                             \
    moments(x, image, told, shift, inverse, P, C, G, eps, half);                                   \
    activate_image(x, image, gain, bias, y, shift, inverse, own_keys, places, P, C, least, silu,   \
                   p, half)
        if (half) {
            ACTIVATE(1);
        } else {
            ACTIVATE(0);
        }
    }
}

INLINE void activate_image_back(const void *x, long image, const float *gain, const float *bias,
                                const float *shift, const float *inverse, const void *dy,
                                const void *aside, void *dx, float *dgain, float *dbias,
                                float *dfeatures, uint16_t *y, float *dz, const uint32_t *keys,
                                const uint32_t *places, long P, long C, long G, int32_t least,
                                int silu, float p, int half, int half_dy) {
    float along[MOST], across[MOST];
    for (long c = 0; c < C; c++)
        dgain[c] = dbias[c] = dfeatures[c] = 0;
    RUNS {
        lanes scale = AT(inverse, c), offset = AT(shift, c) * scale;
        lanes units = AT(dgain, c), sum = AT(dbias, c);
        RUN {
            long at = image + i * C + c;
            lanes unit = get(x, at, half) * scale + offset, d = get(dy, at, half_dy);
            lanes z = unit * AT(gain, c) + AT(bias, c), kept = {0};
            if (p > 0)
                d *= kept = mask(places + i * C + c, keys, least, p);
            if (silu) {
                lanes share = logistic(z);
                d *= share * (1 + z * (1 - share));
                z *= share;
            }
            if (y)
                put(y, at, p > 0 ? z * kept : z, 1);
            AT(dz, i * C + c) = d;
            units += d * unit;
            sum += d;
        }
        AT(dgain, c) = units;
        AT(dbias, c) = sum;
    }
    for (long g = 0, n = C / G; g < G; g++) {
        double mean = 0, slope = 0;
        for (long c = g * n; c < (g + 1) * n; c++) {
            mean += (double)gain[c] * dbias[c] / (n * P);
            slope += (double)gain[c] * dgain[c] / (n * P);
        }
        for (long c = g * n; c < (g + 1) * n; c++)
            along[c] = mean, across[c] = slope;
    }
    RUNS {
        lanes scale = AT(inverse, c), offset = AT(shift, c) * scale, sum = AT(dfeatures, c);
        lanes slope = AT(gain, c) * scale, bend = -AT(across, c) * scale;
        lanes level = -AT(along, c) * scale + bend * offset;
        bend *= scale;
        RUN {
            long at = image + i * C + c;
            lanes d = AT(dz, i * C + c) * slope + get(x, at, half) * bend + level;
            sum += d;
            put(dx, at, aside ? d + get(aside, at, half) : d, half);
        }
        AT(dfeatures, c) = sum;
    }
}

/* The gradient of `activate`: dx, plus `aside`, the gradient of x from its other uses; and for each
   image (B, C) those of gain, bias and features. If y is not null, the result of `activate` is
   written to it again, as bfloat16. */
void activate_back(const void *x, const float *gain, const float *bias, const float *stats,
                   const void *dy, const void *aside, void *dx, float *dgain, float *dbias,
                   float *dfeatures, uint16_t *y, float *room, const uint32_t *keys,
                   const uint32_t *places, long B, long threads, long half, long half_dy, long P,
                   long C, long G, long silu, long least, float p) {
#pragma omp parallel for num_threads(threads)
    for (long b = 0; b < B; b++) {
        const float *shift = stats + 2 * b * C, *inverse = shift + C;
        const uint32_t *own_keys = keys ? keys + 2 * b : 0;
        float *dz = own(room, P * C);
        long image = b * P * C, row = b * C;
#define BACK(...)                                                                                  \
    activate_image_back(x, image, gain, bias, shift, inverse, dy, aside, dx, dgain + row,          \
                        dbias + row, dfeatures + row, __VA_ARGS__)
        if (half)
            BACK(0, dz, own_keys, places, P, C, G, least, silu, p, 1, 1);
        else if (half_dy)
            BACK(y, dz, own_keys, places, P, C, G, least, silu, p, 0, 1);
        else
            BACK(0, dz, own_keys, places, P, C, G, least, silu, p, 0, 0);
    }
}
