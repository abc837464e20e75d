// Loaded before oneDNN (LD_PRELOAD), measures every dense float32 product that the engine asks it for. At exit a JSON line
// a shape goes to the file that BRICK_PRODUCT_TIMES names. Compiled and used by profile_training.py.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef int (*Sgemm)(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t, float,
                     float*, int64_t);

typedef struct {
  char trans_a, trans_b, nested;  // nested: by one thread, inside a parallel region
  int64_t m, n, k;
  int64_t calls;
  double seconds, fastest;
} Shape;

enum { kShapes = 1 << 14 };
static Shape shapes[kShapes];
static int count;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void write_all(void) {
  FILE* file = fopen(getenv("BRICK_PRODUCT_TIMES"), "w");
  if (!file) return;
  for (int i = 0; i < count; ++i) {
    const Shape* s = &shapes[i];
    fprintf(file,
            "{\"trans\":\"%c%c\",\"nested\":%d,\"m\":%ld,\"n\":%ld,\"k\":%ld,\"calls\":%ld,\"seconds\":%.9f,"
            "\"fastest\":%.9f}\n",
            s->trans_a, s->trans_b, s->nested, (long)s->m, (long)s->n, (long)s->k, (long)s->calls, s->seconds,
            s->fastest);
  }
  fclose(file);
}

static void record(char ta, char tb, int64_t m, int64_t n, int64_t k, double seconds) {
  const char nested = (char)(omp_in_parallel() != 0);
#pragma omp critical(product_times)
  {
    int i = 0;
    while (i < count && !(shapes[i].m == m && shapes[i].n == n && shapes[i].k == k && shapes[i].trans_a == ta &&
                          shapes[i].trans_b == tb && shapes[i].nested == nested))
      ++i;
    if (i < kShapes) {
      if (i == count) shapes[count++] = (Shape){ta, tb, nested, m, n, k, 0, 0, seconds};
      shapes[i].calls += 1;
      shapes[i].seconds += seconds;
      if (seconds < shapes[i].fastest) shapes[i].fastest = seconds;
    }
  }
}

int dnnl_sgemm(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
               const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  static Sgemm original;
  if (!original) {
    original = (Sgemm)dlsym(RTLD_NEXT, "dnnl_sgemm");
    atexit(write_all);
  }
  const double begin = now();
  const int result = original(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  record(ta, tb, m, n, k, now() - begin);
  return result;
}
