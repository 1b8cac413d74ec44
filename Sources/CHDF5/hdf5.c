// libhdf5, loaded when the first HDF5 file is met: with the libraries that it needs it takes longer to load than all else.
//
// The functions of hdf5.h that this package calls are defined here and pass their arguments on. All but 'mpo_h5_load' need
// it to have succeeded.
#include "CHDF5.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

// The names that a library of the version of these headers has, on Debian and elsewhere.
#if H5_VERS_MAJOR == 1 && H5_VERS_MINOR == 10
#define SUFFIX ".so.103"
#elif H5_VERS_MAJOR == 1 && H5_VERS_MINOR == 12
#define SUFFIX ".so.200"
#elif H5_VERS_MAJOR == 1 && H5_VERS_MINOR == 14
#define SUFFIX ".so.310"
#else
#define SUFFIX ".so"
#endif

static void *library;

static const char *open_library(void) {
  // Where it lies when it is in none of the system's folders.
  const char *given = getenv("MPO_HDF5_LIBRARY");
  if (given && *given) {
    library = dlopen(given, RTLD_NOW | RTLD_LOCAL);
    return library ? NULL : dlerror();
  }
  // One that was installed with the program, which needs not be the system's.
  char own[4096];
  ssize_t size = readlink("/proc/self/exe", own, sizeof own);
  if (size > 0 && (size_t)size < sizeof own) {
    while (size > 0 && own[size - 1] != '/') size--;
    if ((size_t)snprintf(own + size, sizeof own - (size_t)size, "libmpo-hdf5.so") < sizeof own - (size_t)size)
      library = dlopen(own, RTLD_NOW | RTLD_LOCAL);
  }
  if (!library) library = dlopen("libhdf5_serial" SUFFIX, RTLD_NOW | RTLD_LOCAL);
  if (!library) library = dlopen("libhdf5" SUFFIX, RTLD_NOW | RTLD_LOCAL);
  return library ? NULL : dlerror();
}

const char *mpo_h5_load(void) {
  if (library) return NULL;
  const char *problem = open_library();
  if (problem) return problem;
  herr_t (*version)(unsigned *, unsigned *, unsigned *) =
      (herr_t(*)(unsigned *, unsigned *, unsigned *))dlsym(library, "H5get_libversion");
  unsigned major = 0, minor = 0, release = 0;
  if (!version || version(&major, &minor, &release) < 0 || major != H5_VERS_MAJOR || minor != H5_VERS_MINOR) {
    dlclose(library);
    library = NULL;
    return "the library found is not version " TEXT(H5_VERS_MAJOR) "." TEXT(H5_VERS_MINOR);
  }
  return NULL;
}

static void *symbol(const char *name) {
  void *result = library ? dlsym(library, name) : NULL;
  if (!result) {
    fprintf(stderr, "libhdf5 has no %s\n", name);
    abort();
  }
  return result;
}

#define VALUE(function, name) \
  hid_t function(void) { return *(const hid_t *)symbol(#name); }

VALUE(mpo_h5p_file_access, H5P_CLS_FILE_ACCESS_ID_g)
VALUE(mpo_h5p_file_create, H5P_CLS_FILE_CREATE_ID_g)
VALUE(mpo_h5p_link_create, H5P_CLS_LINK_CREATE_ID_g)
VALUE(mpo_h5p_group_create, H5P_CLS_GROUP_CREATE_ID_g)
VALUE(mpo_h5t_i8, H5T_STD_I8LE_g)
VALUE(mpo_h5t_i16, H5T_STD_I16LE_g)
VALUE(mpo_h5t_i32, H5T_STD_I32LE_g)
VALUE(mpo_h5t_i64, H5T_STD_I64LE_g)
VALUE(mpo_h5t_u8, H5T_STD_U8LE_g)
VALUE(mpo_h5t_u16, H5T_STD_U16LE_g)
VALUE(mpo_h5t_u32, H5T_STD_U32LE_g)
VALUE(mpo_h5t_u64, H5T_STD_U64LE_g)
VALUE(mpo_h5t_f32, H5T_IEEE_F32LE_g)
VALUE(mpo_h5t_f64, H5T_IEEE_F64LE_g)
VALUE(mpo_h5t_c_string, H5T_C_S1_g)
VALUE(mpo_h5t_object_reference, H5T_STD_REF_OBJ_g)

#define FORWARD(result, name, parameters, arguments) \
  result name parameters { \
    static __typeof__(&name) function; \
    if (!function) function = (__typeof__(&name))symbol(TEXT(name)); \
    return function arguments; \
  }

FORWARD(herr_t, H5check_version, (unsigned a, unsigned b, unsigned c), (a, b, c))
FORWARD(herr_t, H5free_memory, (void *a), (a))
FORWARD(hid_t, H5Acreate2, (hid_t a, const char *b, hid_t c, hid_t d, hid_t e, hid_t f), (a, b, c, d, e, f))
FORWARD(htri_t, H5Aexists, (hid_t a, const char *b), (a, b))
FORWARD(hid_t, H5Aget_create_plist, (hid_t a), (a))
FORWARD(ssize_t, H5Aget_name_by_idx, (hid_t a, const char *b, H5_index_t c, H5_iter_order_t d, hsize_t e, char *f,
    size_t g, hid_t h),
    (a, b, c, d, e, f, g, h))
FORWARD(hid_t, H5Aget_space, (hid_t a), (a))
FORWARD(hid_t, H5Aget_type, (hid_t a), (a))
FORWARD(hid_t, H5Aopen, (hid_t a, const char *b, hid_t c), (a, b, c))
FORWARD(hid_t, H5Aopen_by_name, (hid_t a, const char *b, const char *c, hid_t d, hid_t e), (a, b, c, d, e))
FORWARD(herr_t, H5Aread, (hid_t a, hid_t b, void *c), (a, b, c))
FORWARD(herr_t, H5Awrite, (hid_t a, hid_t b, const void *c), (a, b, c))
FORWARD(hid_t, H5Dcreate2, (hid_t a, const char *b, hid_t c, hid_t d, hid_t e, hid_t f, hid_t g), (a, b, c, d, e, f, g))
FORWARD(herr_t, H5Dget_chunk_info_by_coord, (hid_t a, const hsize_t *b, unsigned *c, haddr_t *d, hsize_t *e),
    (a, b, c, d, e))
FORWARD(herr_t, H5Dget_chunk_storage_size, (hid_t a, const hsize_t *b, hsize_t *c), (a, b, c))
FORWARD(hid_t, H5Dget_create_plist, (hid_t a), (a))
FORWARD(haddr_t, H5Dget_offset, (hid_t a), (a))
FORWARD(hid_t, H5Dget_space, (hid_t a), (a))
FORWARD(hsize_t, H5Dget_storage_size, (hid_t a), (a))
FORWARD(hid_t, H5Dget_type, (hid_t a), (a))
FORWARD(hid_t, H5Dopen2, (hid_t a, const char *b, hid_t c), (a, b, c))
FORWARD(herr_t, H5Dread, (hid_t a, hid_t b, hid_t c, hid_t d, hid_t e, void *f), (a, b, c, d, e, f))
FORWARD(herr_t, H5Dread_chunk, (hid_t a, hid_t b, const hsize_t *c, uint32_t *d, void *e), (a, b, c, d, e))
FORWARD(herr_t, H5Dvlen_reclaim, (hid_t a, hid_t b, hid_t c, void *d), (a, b, c, d))
FORWARD(herr_t, H5Dwrite, (hid_t a, hid_t b, hid_t c, hid_t d, hid_t e, const void *f), (a, b, c, d, e, f))
FORWARD(herr_t, H5Eclear2, (hid_t a), (a))
FORWARD(herr_t, H5Eset_auto2, (hid_t a, H5E_auto2_t b, void *c), (a, b, c))
FORWARD(herr_t, H5Ewalk2, (hid_t a, H5E_direction_t b, H5E_walk2_t c, void *d), (a, b, c, d))
FORWARD(hid_t, H5Fcreate, (const char *a, unsigned b, hid_t c, hid_t d), (a, b, c, d))
FORWARD(herr_t, H5Fflush, (hid_t a, H5F_scope_t b), (a, b))
FORWARD(hid_t, H5Fget_create_plist, (hid_t a), (a))
FORWARD(herr_t, H5Fget_info2, (hid_t a, H5F_info2_t *b), (a, b))
FORWARD(hid_t, H5Fopen, (const char *a, unsigned b, hid_t c), (a, b, c))
FORWARD(hid_t, H5Gcreate2, (hid_t a, const char *b, hid_t c, hid_t d, hid_t e), (a, b, c, d, e))
FORWARD(hid_t, H5Gget_create_plist, (hid_t a), (a))
FORWARD(hid_t, H5Gopen2, (hid_t a, const char *b, hid_t c), (a, b, c))
FORWARD(int, H5Idec_ref, (hid_t a), (a))
FORWARD(herr_t, H5Lcreate_hard, (hid_t a, const char *b, hid_t c, const char *d, hid_t e, hid_t f), (a, b, c, d, e, f))
FORWARD(herr_t, H5Lcreate_soft, (const char *a, hid_t b, const char *c, hid_t d, hid_t e), (a, b, c, d, e))
FORWARD(herr_t, H5Lget_info, (hid_t a, const char *b, H5L_info_t *c, hid_t d), (a, b, c, d))
FORWARD(herr_t, H5Lget_val, (hid_t a, const char *b, void *c, size_t d, hid_t e), (a, b, c, d, e))
FORWARD(herr_t, H5Literate, (hid_t a, H5_index_t b, H5_iter_order_t c, hsize_t *d, H5L_iterate_t e, void *f),
    (a, b, c, d, e, f))
FORWARD(herr_t, H5Ocopy, (hid_t a, const char *b, hid_t c, const char *d, hid_t e, hid_t f), (a, b, c, d, e, f))
FORWARD(herr_t, H5Oget_info2, (hid_t a, H5O_info_t *b, unsigned c), (a, b, c))
FORWARD(herr_t, H5Oget_info_by_name2, (hid_t a, const char *b, H5O_info_t *c, unsigned d, hid_t e), (a, b, c, d, e))
FORWARD(hid_t, H5Oopen, (hid_t a, const char *b, hid_t c), (a, b, c))
FORWARD(herr_t, H5PLset_loading_state, (unsigned a), (a))
FORWARD(hid_t, H5Pcreate, (hid_t a), (a))
FORWARD(herr_t, H5Pfill_value_defined, (hid_t a, H5D_fill_value_t *b), (a, b))
FORWARD(herr_t, H5Pget_alloc_time, (hid_t a, H5D_alloc_time_t *b), (a, b))
FORWARD(herr_t, H5Pget_attr_creation_order, (hid_t a, unsigned *b), (a, b))
FORWARD(int, H5Pget_chunk, (hid_t a, int b, hsize_t *c), (a, b, c))
FORWARD(int, H5Pget_external_count, (hid_t a), (a))
FORWARD(herr_t, H5Pget_fill_value, (hid_t a, hid_t b, void *c), (a, b, c))
FORWARD(H5Z_filter_t, H5Pget_filter2, (hid_t a, unsigned b, unsigned *c, size_t *d, unsigned *e, size_t f, char *g,
    unsigned *h),
    (a, b, c, d, e, f, g, h))
FORWARD(H5D_layout_t, H5Pget_layout, (hid_t a), (a))
FORWARD(herr_t, H5Pget_link_creation_order, (hid_t a, unsigned *b), (a, b))
FORWARD(int, H5Pget_nfilters, (hid_t a), (a))
FORWARD(herr_t, H5Pget_userblock, (hid_t a, hsize_t *b), (a, b))
FORWARD(herr_t, H5Pset_alloc_time, (hid_t a, H5D_alloc_time_t b), (a, b))
FORWARD(herr_t, H5Pset_attr_creation_order, (hid_t a, unsigned b), (a, b))
FORWARD(herr_t, H5Pset_char_encoding, (hid_t a, H5T_cset_t b), (a, b))
FORWARD(herr_t, H5Pset_file_locking, (hid_t a, hbool_t b, hbool_t c), (a, b, c))
FORWARD(herr_t, H5Pset_libver_bounds, (hid_t a, H5F_libver_t b, H5F_libver_t c), (a, b, c))
FORWARD(herr_t, H5Pset_link_creation_order, (hid_t a, unsigned b), (a, b))
FORWARD(hid_t, H5Screate, (H5S_class_t a), (a))
FORWARD(hid_t, H5Screate_simple, (int a, const hsize_t *b, const hsize_t *c), (a, b, c))
FORWARD(int, H5Sget_simple_extent_dims, (hid_t a, hsize_t *b, hsize_t *c), (a, b, c))
FORWARD(int, H5Sget_simple_extent_ndims, (hid_t a), (a))
FORWARD(hssize_t, H5Sget_simple_extent_npoints, (hid_t a), (a))
FORWARD(H5S_class_t, H5Sget_simple_extent_type, (hid_t a), (a))
FORWARD(herr_t, H5Sselect_hyperslab, (hid_t a, H5S_seloper_t b, const hsize_t *c, const hsize_t *d, const hsize_t *e,
    const hsize_t *f),
    (a, b, c, d, e, f))
FORWARD(hid_t, H5Tcopy, (hid_t a), (a))
FORWARD(hid_t, H5Tcreate, (H5T_class_t a, size_t b), (a, b))
FORWARD(htri_t, H5Tdetect_class, (hid_t a, H5T_class_t b), (a, b))
FORWARD(hid_t, H5Tenum_create, (hid_t a), (a))
FORWARD(herr_t, H5Tenum_insert, (hid_t a, const char *b, const void *c), (a, b, c))
FORWARD(htri_t, H5Tequal, (hid_t a, hid_t b), (a, b))
FORWARD(H5T_class_t, H5Tget_class, (hid_t a), (a))
FORWARD(size_t, H5Tget_ebias, (hid_t a), (a))
FORWARD(herr_t, H5Tget_fields, (hid_t a, size_t *b, size_t *c, size_t *d, size_t *e, size_t *f), (a, b, c, d, e, f))
FORWARD(char *, H5Tget_member_name, (hid_t a, unsigned b), (a, b))
FORWARD(size_t, H5Tget_member_offset, (hid_t a, unsigned b), (a, b))
FORWARD(hid_t, H5Tget_member_type, (hid_t a, unsigned b), (a, b))
FORWARD(herr_t, H5Tget_member_value, (hid_t a, unsigned b, void *c), (a, b, c))
FORWARD(int, H5Tget_nmembers, (hid_t a), (a))
FORWARD(H5T_norm_t, H5Tget_norm, (hid_t a), (a))
FORWARD(int, H5Tget_offset, (hid_t a), (a))
FORWARD(H5T_order_t, H5Tget_order, (hid_t a), (a))
FORWARD(size_t, H5Tget_precision, (hid_t a), (a))
FORWARD(H5T_sign_t, H5Tget_sign, (hid_t a), (a))
FORWARD(size_t, H5Tget_size, (hid_t a), (a))
FORWARD(H5T_str_t, H5Tget_strpad, (hid_t a), (a))
FORWARD(hid_t, H5Tget_super, (hid_t a), (a))
FORWARD(char *, H5Tget_tag, (hid_t a), (a))
FORWARD(htri_t, H5Tis_variable_str, (hid_t a), (a))
FORWARD(herr_t, H5Tset_cset, (hid_t a, H5T_cset_t b), (a, b))
FORWARD(herr_t, H5Tset_ebias, (hid_t a, size_t b), (a, b))
FORWARD(herr_t, H5Tset_fields, (hid_t a, size_t b, size_t c, size_t d, size_t e, size_t f), (a, b, c, d, e, f))
FORWARD(herr_t, H5Tset_order, (hid_t a, H5T_order_t b), (a, b))
FORWARD(herr_t, H5Tset_size, (hid_t a, size_t b), (a, b))
FORWARD(herr_t, H5Tset_tag, (hid_t a, const char *b), (a, b))
FORWARD(htri_t, H5Zfilter_avail, (H5Z_filter_t a), (a))
FORWARD(herr_t, H5open, (void), ())
