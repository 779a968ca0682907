// SPDX-License-Identifier: GPL-2.0
/*
 * Hangs the machine for good: every CPU spins with interrupts off, so that no
 * shutdown request, timer or console can get through.
 */
#include <linux/irqflags.h>
#include <linux/module.h>
#include <linux/processor.h>
#include <linux/smp.h>

static void spin(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static int __init hang_init(void)
{
	smp_call_function(spin, NULL, 0);
	spin(NULL);
	return 0;
}
module_init(hang_init);

MODULE_DESCRIPTION("Hang every CPU with interrupts off");
MODULE_LICENSE("GPL");
