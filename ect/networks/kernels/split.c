/* The convolutions with each float as the sum of two bfloat16 (16 binary digits), in tiles of AMX:
   high times high, high times low and low times high, summed in float32. C, O and R are multiples
   of 32. Without AMX only `split_ready` is compiled, and returns 0. */

#include "winograd.h"

#if !defined(__AMX_BF16__) || !defined(__AVX512BF16__) || defined(__clang__)
int split_ready(void) { return 0; }
#else
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether the system lets this process use the tiles' registers. */
int split_ready(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

/* Halves of one of 36 matrices of K numbers a row, and 64 bytes to the next. */
INLINE long halves_of(long rows, long K) { return rows * K + 32; }

/* x as the sum of two bfloat16: its high part at `to`, its low one `low` halves behind. */
INLINE void part(lanes x, uint16_t *to, long low) {
    halves high = (halves)_mm512_cvtneps_pbh((__m512)x);
    lanes rest = x - (lanes)(__builtin_convertvector(high, words) << 16);
    *(halves *)to = high;
    *(halves *)(to + low) = (halves)_mm512_cvtneps_pbh((__m512)rest);
}

/* 16 rows of 16 words -> their columns. */
static void transpose(const words *from, words *to) {
    words row[16];
    for (int i = 0; i < 16; i++)
        row[i] = from[i];
#pragma GCC unroll 4
    for (int s = 1; s < 16; s *= 2) {
        words up, down;
        for (int j = 0; j < 16; j++) {
            up[j] = j & s ? 16 + j - s : j;
            down[j] = j & s ? 16 + j : j + s;
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (!(i & s)) {
                words a = row[i], b = row[i + s];
                row[i] = __builtin_shuffle(a, b, up);
                row[i + s] = __builtin_shuffle(a, b, down);
            }
    }
    for (int i = 0; i < 16; i++)
        to[i] = row[i];
}

/* Weights (O, 3, 3, C) -> 36 operands on the right. */
void split_filters(const float *weight, uint16_t *u, long C, long threads, long O) {
    long low = 36 * halves_of(C, O);
#pragma omp parallel for num_threads(threads)
    for (long o = 0; o < O; o += 16)
        for (long c = 0; c < C; c += 32) {
            uint16_t rows[2][36][16][32];
            for (long k = 0; k < 32; k++) { /* 16 of the 32 channels, of one of the 16 filters */
                lanes g[9], all[36];
                for (int n = 0; n < 9; n++)
                    g[n] = AT(weight, ((o + k / 2) * 9 + n) * C + c + k % 2 * 16);
                filter_of(g, all);
                for (int n = 0; n < 36; n++)
                    part(all[n], &rows[0][n][k / 2][k % 2 * 16], sizeof(rows[0]) / 2);
            }
            for (int n = 0; n < 36; n++)
                for (int part = 0; part < 2; part++)
                    transpose((words *)rows[part][n],
                              (words *)(u + part * low + n * halves_of(C, O) + o * C + c * 16));
        }
}

/* Eight tiles of 16 rows of 64 bytes. */
static const struct {
    uint8_t palette, row, none[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} SHAPE = {
    .palette = 1,
    .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* GCC does not know that the instructions of tiles read memory. */
#define WRITTEN __asm__ volatile("" ::: "memory")

/* A matrix in tiles of 1 KB, in halves: an operand on the left lies as (rows / 16, K / 32, 16, 32),
   one on the right as (columns / 16, K / 2, 16, 2). */
typedef struct {
    const uint16_t *at;
    long low, second, next; /* to the low part, the 16 rows or columns beside, the next 32 of K */
} operand;

/* Tiles 0 .. 3 += a b, of 32 rows and 32 columns, over K. */
INLINE void multiply(operand a, operand b, long K) {
#define LOAD(tile, x, part) _tile_loadd(tile, (x).at + (part), 64)
#define ALL                                                                                        \
    _tile_dpbf16ps(0, 4, 6);                                                                       \
    _tile_dpbf16ps(1, 4, 7);                                                                       \
    _tile_dpbf16ps(2, 5, 6);                                                                       \
    _tile_dpbf16ps(3, 5, 7)
    WRITTEN;
    for (long k = 0; k < K; k += 32, a.at += a.next, b.at += b.next) {
        LOAD(4, a, 0);
        LOAD(5, a, a.second);
        LOAD(6, b, b.low);
        LOAD(7, b, b.low + b.second);
        ALL;
        LOAD(6, b, 0);
        LOAD(7, b, b.second);
        ALL;
        LOAD(4, a, a.low);
        LOAD(5, a, a.low + a.second);
        ALL;
    }
}

/* 32x32 of a matrix in floats, in the layout of a panel. */
INLINE void store(float *at) {
    _tile_stored(0, at, 4 * PANEL);
    _tile_stored(1, at + 16, 4 * PANEL);
    _tile_stored(2, at + 16 * PANEL, 4 * PANEL);
    _tile_stored(3, at + 16 * PANEL + 16, 4 * PANEL);
    WRITTEN;
}
INLINE void zero(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* `gather`, as an operand on the left, whose rows are tiles. */
static void gather_left(const float *const pixels[36], uint16_t *v, long low, long r, long R,
                        long C, long k) {
    for (long c = 0; c < C; c += 16) {
        lanes rows[3][6];
        rows_of(pixels, c, rows, k);
        uint16_t *to = v + (r / 16 * C + c / 32 * 32) * 16 + r % 16 * 32 + c % 32;
        for (int n = 0; n < 18; n++)
            part(rows[n / 6][n % 6], to + n * halves_of(R, C), low);
    }
}

/* `convolve`, with filters that are split. */
void split_convolve(const float *x, const uint16_t *u, const float *bias, const float *skip,
                    float *y, float *room, long B, long threads, long H, long W, long C, long O,
                    long R, long each, float factor) {
    long T = B * (H / 4) * (W / 4), low = 18 * halves_of(R, C), u_low = 36 * halves_of(C, O);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long first = 0; first < T; first += R) {
        long count = T - first < R ? T - first : R;
        float *m = own(room, each);
        uint16_t *v = (uint16_t *)(m + 36 * apart(R, O));
        const float *(*pixels)[36] = (void *)(v + 2 * low);
        _tile_loadconfig(&SHAPE);
        for (long r = 0; r < count; r++)
            look_around(x, first + r, pixels[r], H, W, C);
        for (long k = 0; k < 36; k += 18) {
            for (long r = 0; r < count; r++)
                gather_left(pixels[r], v, low, r, R, C, k);
            for (long n = k; n < k + 18; n++)
                for (long o = 0; o < O; o += 32)
                    for (long r = 0; r < count; r += 32) {
                        operand a = {v + (n - k) * halves_of(R, C) + r * C, low, 16 * C, 512};
                        operand b = {u + n * halves_of(C, O) + o * C, u_low, 16 * C, 512};
                        zero();
                        multiply(a, b, C);
                        store(m + place(R, O, n, r, o));
                    }
        }
        for (long r = 0; r < count; r++)
            scatter(m, r, R, bias, skip, y, first + r, H, W, O, factor);
        _tile_release();
    }
}
#endif
