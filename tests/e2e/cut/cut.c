// SPDX-License-Identifier: GPL-2.0
/*
 * Cuts disks off, as a power failure would: after so many writes, no request
 * reaches the backend any more, and none ends.  For a guest that is destroyed
 * afterwards; the module is never removed.
 */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/module.h>
#include <linux/spinlock.h>

#define MAX_DISKS 8

static char *disks[MAX_DISKS];
static unsigned int nr_disks;
module_param_array(disks, charp, &nr_disks, 0444);
MODULE_PARM_DESC(disks, "paths of the disks");

/* Of each disk.  -1: a write has been held back, the disk is cut off. */
static int writes[MAX_DISKS];
static unsigned int nr_writes;
module_param_array(writes, int, &nr_writes, 0444);
MODULE_PARM_DESC(writes, "how many more writes each disk gets");

static struct request_queue *queues[MAX_DISKS];
static struct blk_mq_ops ops;
static blk_status_t (*queue)(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data);
static DEFINE_SPINLOCK(lock); /* protects writes */

static bool is_cut(const struct request *rq)
{
	unsigned int disk = 0;
	unsigned long flags;
	bool cut;

	while (queues[disk] != rq->q)
		disk++;
	spin_lock_irqsave(&lock, flags);
	if (op_is_write(req_op(rq)) && writes[disk] >= 0)
		writes[disk]--;
	cut = writes[disk] < 0;
	spin_unlock_irqrestore(&lock, flags);
	return cut;
}

static blk_status_t cut_queue(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data)
{
	if (!is_cut(data->rq))
		return queue(hctx, data);
	/* Under way, for ever: blkfront does not look at timeouts. */
	blk_mq_start_request(data->rq);
	return BLK_STS_OK;
}

static int __init cut_init(void)
{
	unsigned int i;

	if (!nr_disks || nr_disks != nr_writes)
		return -EINVAL;
	for (i = 0; i < nr_disks; i++) {
		struct file *file = bdev_file_open_by_path(disks[i], BLK_OPEN_READ, NULL, NULL);

		if (IS_ERR(file))
			return PTR_ERR(file);
		queues[i] = bdev_get_queue(file_bdev(file));
	}
	/* All of them are blkfront's. */
	ops = *queues[0]->mq_ops;
	queue = ops.queue_rq;
	ops.queue_rq = cut_queue;
	for (i = 0; i < nr_disks; i++)
		WRITE_ONCE(queues[i]->mq_ops, &ops);
	return 0;
}
module_init(cut_init);

MODULE_DESCRIPTION("Cut disks off after so many writes");
MODULE_LICENSE("GPL");
