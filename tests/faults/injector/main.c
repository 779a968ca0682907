// SPDX-License-Identifier: GPL-2.0
/*
 * Injects faults of one type into the running kernel, after the types of Rio
 * (Chen et al., 1996) and Nooks (Swift et al., 2003).  For a guest that is
 * there to be broken.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>

#include "faults.h"

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

/* What was asked for; once. */
static struct {
	const struct fault *fault;
	unsigned long seed;
	unsigned int count;
	unsigned int milliseconds; /* spread over this time; 0: all at once */
} order;

static int inject_all(void *unused)
{
	const struct fault *fault = order.fault;
	struct plan plan = plan_for(fault->name, order.seed);
	unsigned int i, done = 0;

	fault_log(fault->name, "%u of %u functions of mm, fs, block and drivers ran before\n", nr_ran, nr_functions);
	for (i = 0; i < order.count; i++) {
		fault_log(fault->name, "number %u\n", i + 1);
		if (fault->inject(fault, &plan))
			fault_log(fault->name, "found nothing to do it to\n");
		else
			done++;
		if (order.milliseconds)
			msleep(order.milliseconds / order.count);
	}
	fault_log(fault->name, "%u of %u injected\n", done, order.count);
	/* Nobody waits for the thread, and the module is never removed. */
	return 0;
}

/* @name none: no fault. */
static int inject(const char *name)
{
	const struct fault *fault = find_fault(name);
	struct task_struct *task;
	int rc;

	if (!strcmp(name, "none"))
		return 0;
	if (!fault || !order.count)
		return -EINVAL;
	if (order.fault)
		return -EBUSY;
	if (fault->prepare) {
		rc = fault->prepare();
		if (rc)
			return rc;
	}
	order.fault = fault;
	task = kthread_run(inject_all, NULL, "faults");
	return PTR_ERR_OR_ZERO(task);
}

/* /proc/faults takes "watch", "enough" and "inject TYPE SEED COUNT MILLISECONDS". */
static ssize_t faults_write(struct file *file, const char __user *from, size_t length, loff_t *offset)
{
	char line[100], name[32];
	int rc = -EINVAL;

	if (length >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, from, length))
		return -EFAULT;
	line[length] = '\0';
	if (!strcmp(line, "watch"))
		rc = watch_start();
	else if (!strcmp(line, "enough"))
		rc = watch_stop();
	else if (sscanf(line, "inject %31s %lu %u %u", name, &order.seed, &order.count, &order.milliseconds) == 4)
		rc = inject(name);
	return rc ?: length;
}

static const struct proc_ops faults_ops = { .proc_write = faults_write };

static int __init faults_init(void)
{
	int rc = symbols_init(lookup);

	if (rc)
		return rc;
	return proc_create("faults", 0200, NULL, &faults_ops) ? 0 : -ENOMEM;
}
module_init(faults_init);

MODULE_DESCRIPTION("Inject faults into the running kernel");
MODULE_LICENSE("GPL");
