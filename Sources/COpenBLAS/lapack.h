/* The routines of LAPACK that LinearAlgebra calls, as OpenBLAS exports them.

   Fortran's convention: arguments by reference, integers of 32 bits, and last the length of each string. Matrices are stored by
   columns. Every function returns LAPACK's INFO: 0, -i for an illegal argument i, or what the routine says of a failure;
   LAPACK_NOT_FINITE for elements that are NaN or infinite, where a routine would not end with an error; LAPACK_NO_MEMORY. */
#pragma once
#include <stdlib.h>

enum { LAPACK_NO_MEMORY = -1010, LAPACK_NOT_FINITE = -1011 };

void dgelqf_(const int *m, const int *n, double *a, const int *lda, double *tau, double *work, const int *lwork, int *info);
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u, const int *ldu,
             double *vt, const int *ldvt, double *work, const int *lwork, int *iwork, int *info, size_t);
void dgetrf_(const int *m, const int *n, double *a, const int *lda, int *ipiv, int *info);
void dorglq_(const int *m, const int *n, const int *k, double *a, const int *lda, const double *tau, double *work,
             const int *lwork, int *info);
void dormtr_(const char *side, const char *uplo, const char *trans, const int *m, const int *n, const double *a, const int *lda,
             const double *tau, double *c, const int *ldc, double *work, const int *lwork, int *info, size_t, size_t, size_t);
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t);
void dpotrs_(const char *uplo, const int *n, const int *nrhs, const double *a, const int *lda, double *b, const int *ldb,
             int *info, size_t);
void dstedc_(const char *compz, const int *n, double *d, double *e, double *z, const int *ldz, double *work, const int *lwork,
             int *iwork, const int *liwork, int *info, size_t);
void dsterf_(const int *n, double *d, double *e, int *info);
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
void dsyevd_2stage_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
                    const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
void dsytrd_(const char *uplo, const int *n, double *a, const int *lda, double *d, double *e, double *tau, double *work,
             const int *lwork, int *info, size_t);
void ssyevd_(const char *jobz, const char *uplo, const int *n, float *a, const int *lda, float *w, float *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);

/* The body of a function: CALL is made twice, first to ask for the sizes of 'work' and 'iwork', then with them. */
#define LAPACK_WITH_WORKSPACE(Scalar, CALL)                      \
  Scalar size = 0, *work = &size;                                \
  int integers = 0, *iwork = &integers, lwork = -1, liwork = -1; \
  int info = 0;                                                  \
  CALL;                                                          \
  if (info != 0) return info;                                    \
  lwork = size < 1 ? 1 : (int)size;                              \
  liwork = integers < 1 ? 1 : integers;                          \
  work = malloc((size_t)lwork * sizeof *work);                   \
  iwork = malloc((size_t)liwork * sizeof *iwork);                \
  info = LAPACK_NO_MEMORY;                                       \
  if (work && iwork) CALL;                                       \
  free(work);                                                    \
  free(iwork);                                                   \
  return info

#define LAPACK_CHECK_FINITE(elements, count)                     \
  for (size_t i = 0; i < (size_t)(count); ++i)                   \
    if (!((elements)[i] - (elements)[i] == 0)) return LAPACK_NOT_FINITE

static inline int lapack_dgelqf(int m, int n, double *a, int lda, double *tau) {
  LAPACK_CHECK_FINITE(a, (size_t)lda * n);
  LAPACK_WITH_WORKSPACE(double, dgelqf_(&m, &n, a, &lda, tau, work, &lwork, &info));
}

static inline int lapack_dgesdd(char jobz, int m, int n, double *a, int lda, double *s, double *u, int ldu, double *vt,
                                int ldvt) {
  LAPACK_WITH_WORKSPACE(double, (integers = 8 * (m < n ? m : n),
                                 dgesdd_(&jobz, &m, &n, a, &lda, s, u, &ldu, vt, &ldvt, work, &lwork, iwork, &info, 1)));
}

static inline int lapack_dgetrf(int m, int n, double *a, int lda, int *ipiv) {
  int info;
  dgetrf_(&m, &n, a, &lda, ipiv, &info);
  return info;
}

static inline int lapack_dorglq(int m, int n, int k, double *a, int lda, const double *tau) {
  LAPACK_WITH_WORKSPACE(double, dorglq_(&m, &n, &k, a, &lda, tau, work, &lwork, &info));
}

static inline int lapack_dormtr(char side, char uplo, char trans, int m, int n, const double *a, int lda, const double *tau,
                                double *c, int ldc) {
  LAPACK_WITH_WORKSPACE(
      double, dormtr_(&side, &uplo, &trans, &m, &n, a, &lda, tau, c, &ldc, work, &lwork, &info, 1, 1, 1));
}

static inline int lapack_dpotrf(char uplo, int n, double *a, int lda) {
  int info;
  dpotrf_(&uplo, &n, a, &lda, &info, 1);
  return info;
}

static inline int lapack_dpotrs(char uplo, int n, int nrhs, const double *a, int lda, double *b, int ldb) {
  int info;
  dpotrs_(&uplo, &n, &nrhs, a, &lda, b, &ldb, &info, 1);
  return info;
}

static inline int lapack_dstedc(char compz, int n, double *d, double *e, double *z, int ldz) {
  LAPACK_CHECK_FINITE(d, n);
  LAPACK_WITH_WORKSPACE(double, dstedc_(&compz, &n, d, e, z, &ldz, work, &lwork, iwork, &liwork, &info, 1));
}

static inline int lapack_dsterf(int n, double *d, double *e) {
  int info;
  LAPACK_CHECK_FINITE(d, n);
  dsterf_(&n, d, e, &info);
  return info;
}

static inline int lapack_dsyevd(char jobz, char uplo, int n, double *a, int lda, double *w) {
  LAPACK_WITH_WORKSPACE(double, dsyevd_(&jobz, &uplo, &n, a, &lda, w, work, &lwork, iwork, &liwork, &info, 1, 1));
}

static inline int lapack_dsyevd_2stage(char jobz, char uplo, int n, double *a, int lda, double *w) {
  LAPACK_CHECK_FINITE(a, (size_t)lda * n);
  LAPACK_WITH_WORKSPACE(double, dsyevd_2stage_(&jobz, &uplo, &n, a, &lda, w, work, &lwork, iwork, &liwork, &info, 1, 1));
}

static inline int lapack_dsytrd(char uplo, int n, double *a, int lda, double *d, double *e, double *tau) {
  LAPACK_CHECK_FINITE(a, (size_t)lda * n);
  LAPACK_WITH_WORKSPACE(double, dsytrd_(&uplo, &n, a, &lda, d, e, tau, work, &lwork, &info, 1));
}

static inline int lapack_ssyevd(char jobz, char uplo, int n, float *a, int lda, float *w) {
  LAPACK_CHECK_FINITE(a, (size_t)lda * n);
  LAPACK_WITH_WORKSPACE(float, ssyevd_(&jobz, &uplo, &n, a, &lda, w, work, &lwork, iwork, &liwork, &info, 1, 1));
}
