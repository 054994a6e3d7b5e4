/* Times in nanoseconds with an error of 0.4 % at most, in the way of HdrHistogram: 256 steps for every power of two. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <string.h>

enum { STEP_BITS = 8, STEPS = 1 << STEP_BITS, POWERS = 40 };

struct histogram {
    uint64_t counts[POWERS * STEPS], count, max;
};

static void clear_histogram(struct histogram *all) { memset(all, 0, sizeof *all); }

static void add_to_histogram(struct histogram *all, uint64_t nanos) {
    int power = 63 - __builtin_clzll(nanos | 1), shift = power > STEP_BITS ? power - STEP_BITS : 0;
    uint64_t place = ((uint64_t)shift << STEP_BITS) + (nanos >> shift);
    uint64_t last = POWERS * STEPS - 1;
    all->counts[place < last ? place : last]++;
    all->count++;
    if (nanos > all->max)
        all->max = nanos;
}

/* The upper end of the step that holds this part of all times. */
static uint64_t quantile(const struct histogram *all, double part) {
    uint64_t wanted = (uint64_t)(part * (double)all->count), seen = 0;
    for (uint64_t place = 0; place < POWERS * STEPS; place++) {
        seen += all->counts[place];
        if (seen <= wanted)
            continue;
        uint64_t shift = place >> STEP_BITS > 1 ? (place >> STEP_BITS) - 1 : 0;
        return ((place - (shift << STEP_BITS) + 1) << shift) - 1;
    }
    return all->max;
}

#endif
