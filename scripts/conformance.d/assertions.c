/* assertions - preloaded into iscsi-test-cu: makes visible which tests of it tested nothing.
 * The suite calls CU_PASS, and only then, where it skips a test; CUnit reports that as passed, and of some of these the
 * suite itself prints nothing. Others return before any assertion. So: a line for each CU_PASS, and one for the first
 * assertion of each test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

extern void *CU_get_current_test(void);

int CU_assertImplementation(int value, unsigned line, const char *condition, const char *file, const char *function, int fatal)
{
	static int (*next)(int, unsigned, const char *, const char *, const char *, int);
	static void *last;
	void *test = CU_get_current_test();

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "CU_assertImplementation");
	if (strncmp(condition, "CU_PASS(", 8) == 0)
		printf("\n    [CU_PASS] %s:%u\n", file, line);
	else if (test != last) {
		printf("\n    [ASSERTED]\n");
		last = test;
	}
	return next(value, line, condition, file, function, fatal);
}
