/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * splice.bpf.c for kernels before 6.2, which have no bpf_cast_to_kern_ctx(). A weak symbol would
 * not do: libbpf looks for it in the BTF of modules too, and to list those takes CAP_SYS_ADMIN.
 */
#define KERNEL_WITHOUT_CAST
#include "splice.bpf.c"
