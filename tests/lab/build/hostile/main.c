// SPDX-License-Identifier: GPL-2.0
/*
 * Calls Xen as no well-behaved guest or dom0 does. Each case is one line of
 * JSON: what Xen should return, and what it did.
 *
 * In a domU:
 *	guest GROUP DOMID VICTIM [DOM0 [SECONDS]]
 *		disabled, privileges, calls, overcommit, frames, tricks, lies, races,
 *		secret
 * In dom0:
 *	serve				the backend's part of the tricks
 *	dom0 ENABLED PLAIN PV DEAD	domctls and resources
 *	writable DOMID			resources, mapped with write permission
 *	zombie DOMID			domctls and resources of a dying domain
 *	storm DOMID SECONDS		domctls while the domU is at it too
 *	touch DOMID SECONDS		map its memory, read it, and write what is there
 *	hold DOMID			map its reuse bitmap until killed
 *	counters DOMID
 *	latency SECONDS
 *	control COMMAND DOMID|UUID [TTL]
 *	pattern MIB			the secret, to standard output
 */
#include "hostile.h"

#include <sched.h>

static int guest(int argc, char **argv)
{
	const char *group = argv[0];
	cpu_set_t first;

	self = atoi(argv[1]);
	victim = atoi(argv[2]);
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first))
		die("first vCPU");
	if (!strcmp(group, "disabled"))
		guest_disabled();
	else if (!strcmp(group, "privileges"))
		guest_privileges(0x7000);
	else if (!strcmp(group, "calls"))
		guest_calls();
	else if (!strcmp(group, "overcommit"))
		guest_overcommit();
	else if (argc > 3) {
		pool_setup();
		peer_connect(argv[3]);
		grants_setup(0);
		if (!strcmp(group, "frames")) {
			guest_frames();
			guest_batches();
		} else if (!strcmp(group, "tricks"))
			guest_tricks();
		else if (!strcmp(group, "lies"))
			guest_lies();
		else if (!strcmp(group, "secret"))
			guest_secret();
		else if (!strcmp(group, "races") && argc > 4)
			guest_races(atoi(argv[4]));
		else
			return 2;
		pool_restore();
	} else
		return 2;
	printf("{\"slowest_ms\":%.1f}\n", slowest());
	fflush(stdout);
	return failures() ? 1 : 0;
}

static int pattern(unsigned int mib)
{
	static uint32_t words[1 << 18];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = SECRET;
	for (; mib; mib--)
		if (fwrite(words, sizeof(words), 1, stdout) != 1)
			die("write");
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	if (!strcmp(command, "pattern") && argc == 3)
		return pattern(atoi(argv[2]));
	setup();
	if (!strcmp(command, "guest") && argc > 4)
		return guest(argc - 2, argv + 2);
	if (!strcmp(command, "serve"))
		peer_serve();
	if (!strcmp(command, "dom0") && argc == 6)
		dom0_calls(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
	else if (!strcmp(command, "writable") && argc == 3)
		dom0_writable(atoi(argv[2]));
	else if (!strcmp(command, "zombie") && argc == 3)
		dom0_zombie(atoi(argv[2]));
	else if (!strcmp(command, "storm") && argc == 4)
		dom0_storm(atoi(argv[2]), atoi(argv[3]));
	else if (!strcmp(command, "touch") && argc == 4)
		dom0_touch(atoi(argv[2]), atoi(argv[3]));
	else if (!strcmp(command, "hold") && argc == 3)
		dom0_hold(atoi(argv[2]));
	else if (!strcmp(command, "counters") && argc == 3)
		dom0_counters(atoi(argv[2]));
	else if (!strcmp(command, "latency") && argc == 3)
		dom0_latency(atoi(argv[2]));
	else if (!strcmp(command, "control"))
		return dom0_control(argc - 2, argv + 2);
	else
		return 2;
	return failures() ? 1 : 0;
}
