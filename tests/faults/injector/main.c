// SPDX-License-Identifier: GPL-2.0
/*
 * Injects faults of one type into the running kernel, after the types of Rio
 * (Chen et al., 1996) and Nooks (Swift et al., 2003).  For a guest that is
 * there to be broken.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>

#include "faults.h"

static char *type = "none";
module_param(type, charp, 0444);
MODULE_PARM_DESC(type, "type of the faults; none: no fault");

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "with the type it decides everything");

static unsigned int count = 10;
module_param(count, uint, 0444);
MODULE_PARM_DESC(count, "number of faults");

static unsigned int milliseconds;
module_param(milliseconds, uint, 0444);
MODULE_PARM_DESC(milliseconds, "spread over this time; 0: all at once");

static unsigned long lookup;
module_param(lookup, ulong, 0444);
MODULE_PARM_DESC(lookup, "address of kallsyms_lookup_name");

/* SplitMix64 (Steele, Lea, Flood, 2014). */
u64 plan_next(struct plan *plan)
{
	u64 z = plan->state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static struct plan plan_for(const char *name, u64 number)
{
	struct plan plan = { .state = number };

	while (*name)
		plan.state = plan_next(&plan) ^ *name++;
	return plan;
}

static const struct fault *find_fault(const char *name)
{
	static const struct fault *const tables[] = {
		text_faults, memory_faults, copy_faults, block_faults,
	};
	const struct fault *fault;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(tables); i++)
		for (fault = tables[i]; fault->name; fault++)
			if (!strcmp(fault->name, name))
				return fault;
	return NULL;
}

static int inject_all(void *data)
{
	const struct fault *fault = data;
	struct plan plan = plan_for(fault->name, seed);
	unsigned int i, done = 0;

	for (i = 0; i < count; i++) {
		fault_log(fault->name, "number %u\n", i + 1);
		if (fault->inject(fault, &plan))
			fault_log(fault->name, "found nothing to do it to\n");
		else
			done++;
		if (milliseconds)
			msleep(milliseconds / count);
	}
	fault_log(fault->name, "%u of %u injected\n", done, count);
	/* Nobody waits for the thread, and the module is never removed. */
	return 0;
}

static int __init faults_init(void)
{
	const struct fault *fault = find_fault(type);
	struct task_struct *task;
	int rc = symbols_init(lookup);

	if (rc)
		return rc;
	if (!strcmp(type, "none"))
		return 0;
	if (!fault || !count)
		return -EINVAL;
	if (fault->prepare) {
		rc = fault->prepare();
		if (rc)
			return rc;
	}
	task = kthread_run(inject_all, (void *)fault, "faults");
	return PTR_ERR_OR_ZERO(task);
}
module_init(faults_init);

MODULE_DESCRIPTION("Inject faults into the running kernel");
MODULE_LICENSE("GPL");
