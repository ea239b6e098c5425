// Preloaded into a program, counts its live heap blocks by size. SIGUSR2 prints the counts.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Blocks by the size that glibc gave, in steps of 16 bytes; the last place is for all larger ones.
enum { STEP = 16, PLACES = 4097 };
static atomic_long live[PLACES];
static atomic_long large_bytes;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void *count(void *block, long sign) {
    if (!block) return block;
    size_t size = malloc_usable_size(block), place = size / STEP;
    if (place >= PLACES - 1) {
        place = PLACES - 1;
        large_bytes += sign * (long)size;
    }
    live[place] += sign;
    return block;
}

void *malloc(size_t size) { return count(__libc_malloc(size), 1); }
void *calloc(size_t count_of, size_t size) { return count(__libc_calloc(count_of, size), 1); }
void free(void *block) { count(block, -1); __libc_free(block); }
void *realloc(void *block, size_t size) {
    count(block, -1);
    void *moved = __libc_realloc(block, size);
    count(moved ? moved : block, 1);
    return moved;
}
void *memalign(size_t align, size_t size) { return count(__libc_memalign(align, size), 1); }
void *aligned_alloc(size_t align, size_t size) { return memalign(align, size); }
int posix_memalign(void **block, size_t align, size_t size) {
    *block = memalign(align, size);
    return *block ? 0 : ENOMEM;
}

static void print(int signal) {
    char line[64];
    for (int place = 0; place < PLACES; place++) {
        if (!live[place]) continue;
        int size = snprintf(line, sizeof line, "heap %d %ld\n", place * STEP + 8, (long)live[place]);
        if (write(2, line, size) < 0) return;
    }
    int size = snprintf(line, sizeof line, "heap large %ld\nheap end\n", (long)large_bytes);
    if (write(2, line, size) < 0) return;
    (void)signal;
}

__attribute__((constructor)) static void start(void) { signal(SIGUSR2, print); }
