// libhdf5, loaded at run time, and what Swift can't import from hdf5.h by itself: macros that stand for expressions,
// functions whose name is a macro in some versions, and structs that have another layout in some versions.
#ifndef MPO_CHDF5_H
#define MPO_CHDF5_H

#define H5_USE_110_API
#if __has_include(<hdf5/serial/hdf5.h>)
#include <hdf5/serial/hdf5.h>
#else
#include <hdf5.h>
#endif
#include <stdio.h>
#include <string.h>

// Loads libhdf5, once; what went wrong where it can't. The environment variable MPO_HDF5_LIBRARY names another file.
const char *mpo_h5_load(void);

hid_t mpo_h5p_file_access(void);
hid_t mpo_h5p_file_create(void);
hid_t mpo_h5p_link_create(void);
hid_t mpo_h5p_group_create(void);
hid_t mpo_h5t_i8(void);
hid_t mpo_h5t_i16(void);
hid_t mpo_h5t_i32(void);
hid_t mpo_h5t_i64(void);
hid_t mpo_h5t_u8(void);
hid_t mpo_h5t_u16(void);
hid_t mpo_h5t_u32(void);
hid_t mpo_h5t_u64(void);
hid_t mpo_h5t_f32(void);
hid_t mpo_h5t_f64(void);
hid_t mpo_h5t_c_string(void);
hid_t mpo_h5t_object_reference(void);

static inline hid_t mpo_h5p_default(void) { return H5P_DEFAULT; }
static inline hid_t mpo_h5s_all(void) { return H5S_ALL; }
static inline haddr_t mpo_haddr_undefined(void) { return HADDR_UNDEF; }
static inline unsigned mpo_h5f_read_only(void) { return H5F_ACC_RDONLY; }
static inline unsigned mpo_h5f_truncate(void) { return H5F_ACC_TRUNC; }
static inline unsigned mpo_h5p_creation_order_tracked(void) { return H5P_CRT_ORDER_TRACKED; }
static inline unsigned mpo_h5p_creation_order_indexed(void) { return H5P_CRT_ORDER_INDEXED; }
static inline size_t mpo_h5t_variable(void) { return H5T_VARIABLE; }

// Links of a group, in one order or the other.
typedef herr_t (*mpo_h5_link_visitor)(const char *name, int type, int character_set, void *context);

struct mpo_h5_link_visit {
  mpo_h5_link_visitor visitor;
  void *context;
};

static inline herr_t mpo_h5_visit_link(
    hid_t group, const char *name, const H5L_info_t *info, void *context) {
  struct mpo_h5_link_visit *visit = (struct mpo_h5_link_visit *)context;
  (void)group;
  return visit->visitor(name, (int)info->type, (int)info->cset, visit->context);
}

static inline herr_t mpo_h5_visit_links(
    hid_t group, int by_creation_order, mpo_h5_link_visitor visitor, void *context) {
  struct mpo_h5_link_visit visit = {visitor, context};
  hsize_t index = 0;
  return H5Literate(
      group, by_creation_order ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME, H5_ITER_INC, &index, mpo_h5_visit_link, &visit);
}

// The size of a symbolic link's target, with its terminating zero; negative on failure.
static inline ssize_t mpo_h5_link_value_size(hid_t group, const char *name) {
  H5L_info_t info;
  if (H5Lget_info(group, name, &info, H5P_DEFAULT) < 0) return -1;
  return (ssize_t)info.u.val_size;
}

// What identifies an object of a file, and what it is (H5O_type_t).
struct mpo_h5_object {
  haddr_t address;
  int type;
  unsigned links;
};

static inline herr_t mpo_h5_object_at(hid_t location, const char *name, struct mpo_h5_object *result) {
  H5O_info_t info;
  if (H5Oget_info_by_name2(location, name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) return -1;
  result->address = info.addr;
  result->type = (int)info.type;
  result->links = info.rc;
  return 0;
}

static inline int mpo_h5_attribute_count(hid_t object) {
  H5O_info_t info;
  if (H5Oget_info2(object, &info, H5O_INFO_NUM_ATTRS) < 0) return -1;
  return info.num_attrs > 0x7FFFFFFF ? -1 : (int)info.num_attrs;
}

static inline herr_t mpo_h5_superblock_version(hid_t file, unsigned *version) {
  H5F_info2_t info;
  if (H5Fget_info2(file, &info) < 0) return -1;
  *version = info.super.version;
  return 0;
}

// The reason of a failure: what the innermost function said, without the line breaks.
static inline herr_t mpo_h5_note_error(unsigned n, const H5E_error2_t *error, void *context) {
  if (n == 0 && error->desc) snprintf((char *)context, 256, "%s", error->desc);
  return 0;
}

static inline void mpo_h5_take_error(char buffer[256]) {
  buffer[0] = 0;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, mpo_h5_note_error, buffer);
  H5Eclear2(H5E_DEFAULT);
}

static inline herr_t mpo_h5_silence_errors(void) { return H5Eset_auto2(H5E_DEFAULT, NULL, NULL); }

#endif
