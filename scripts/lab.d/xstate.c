/*
 * xstate.c - preloaded into linux.uml on a machine whose CPU has AMX: lets user-mode Linux set its processes' registers.
 * UML keeps 2696 bytes of extended state a process, all there was before AMX. The kernel below takes a PTRACE_SETREGSET of
 * NT_X86_XSTATE only in the full size, 11008 bytes with AMX, and answers EFAULT: the guest's init is killed at once. Here
 * such a call is made again with what is missing as zeros, which says: in its initial state. No guest can use AMX, that
 * needs an arch_prctl that UML has not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { XSTATE_BV = 512, XCOMP_BV = 520, HEADER_END = 576, AMX = 3 << 17 };

static long again(long (*real)(int, pid_t, void *, void *), pid_t pid, void *type, const struct iovec *given) {
	/* One thread of UML runs at a time, and nothing of it runs while another is in here. */
	static char full[65536] __attribute__((aligned(64)));
	struct iovec iov = { full, sizeof(full) };
	uint64_t used;

	/* How long the whole is, as the kernel knows it. */
	if (real(PTRACE_GETREGSET, pid, type, &iov) < 0)
		return -1;
	if (given->iov_len < HEADER_END || given->iov_len >= iov.iov_len) {
		errno = EFAULT;
		return -1;
	}
	memset(full, 0, iov.iov_len);
	memcpy(full, given->iov_base, given->iov_len);
	memcpy(&used, full + XSTATE_BV, sizeof(used));
	used &= ~(uint64_t)AMX;
	memcpy(full + XSTATE_BV, &used, sizeof(used));
	memset(full + XCOMP_BV, 0, HEADER_END - XCOMP_BV);
	return real(PTRACE_SETREGSET, pid, type, &iov);
}

long ptrace(enum __ptrace_request request, ...) {
	static long (*real)(int, pid_t, void *, void *);
	va_list list;
	long result;

	va_start(list, request);
	pid_t pid = va_arg(list, pid_t);
	void *address = va_arg(list, void *);
	void *data = va_arg(list, void *);
	va_end(list);
	if (!real)
		real = (long (*)(int, pid_t, void *, void *))dlsym(RTLD_NEXT, "ptrace");
	result = real(request, pid, address, data);
	if (result < 0 && errno == EFAULT && request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE)
		result = again(real, pid, address, data);
	return result;
}
