/* SPDX-License-Identifier: Apache-2.0 */
/* emu_test.h - cmocka for tests in .cu files: its header has no extern "C". */
#ifndef TEST_EMU_TEST_H
#define TEST_EMU_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#endif
