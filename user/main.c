/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The program's entry; everything else is in the library, which the tests link too. */
#include "cli/cli.h"

int main(int argc, char **argv)
{
	return cli_main(argc, argv);
}
