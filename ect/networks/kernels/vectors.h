/* What the kernels share. Features are (B, H, W, C), C a multiple of 16; a vector holds 16 channels
   of one pixel. Plain C with GCC's vectors. */

#include <omp.h>
#include <stdint.h>

typedef float lanes __attribute__((vector_size(64), aligned(4)));
typedef uint32_t words __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t signs __attribute__((vector_size(64), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(32), aligned(2)));

#define AT(pointer, index) (*(lanes *)((pointer) + (index)))
#define MOST 4096 /* channels */
#define INLINE static inline __attribute__((always_inline))

/* The bits of bfloat16, rounded to the nearest, ties to even, in the lower half of each lane. */
INLINE words rounded(lanes x) {
    words bits = (words)x;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

/* This thread's part of `room`, which has `floats` floats for each thread. */
INLINE float *own(float *room, long floats) { return room + omp_get_thread_num() * floats; }

/* R transformed tiles of C channels have the layout (36, C / 32, R, 32); if C / 16 is odd, the last
   16 channels have (36, 1, R, 16). 16 floats of padding lie between each of the 36 and the next, so
   that they do not all fall on one cache line. */
#define PANEL 32
INLINE long width(long C, long c) { return C - c / PANEL * PANEL < PANEL ? 16 : PANEL; }
INLINE long apart(long R, long C) { return R * C + 16; }
INLINE long place(long R, long C, long n, long r, long c) {
    return n * apart(R, C) + c / PANEL * PANEL * R + r * width(C, c) + c % PANEL;
}
