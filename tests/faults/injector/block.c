// SPDX-License-Identifier: GPL-2.0
/* Fault injector: the disk's driver says that a request is done though it isn't. */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/printk.h>

#include "faults.h"

enum { EARLY = 1, LOST };

static struct blk_mq_ops broken;
static blk_status_t (*queue)(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data);
static int armed; /* what happens to the next request */

/* Ends the request for those who wait for it, while the backend works on it. */
static void end_early(struct bio *bio)
{
	while (bio) {
		struct bio *next = bio->bi_next;

		bio->bi_next = NULL;
		bio_endio(bio);
		bio = next;
	}
}

static blk_status_t broken_queue(struct blk_mq_hw_ctx *hctx, const struct blk_mq_queue_data *data)
{
	struct request *rq = data->rq;
	bool eligible = (req_op(rq) == REQ_OP_READ || req_op(rq) == REQ_OP_WRITE) && rq->bio &&
			!blk_rq_is_passthrough(rq) && !(rq->rq_flags & RQF_FLUSH_SEQ);
	int how = eligible && READ_ONCE(armed) ? xchg(&armed, 0) : 0;
	blk_status_t status;
	struct bio *bio;

	if (how)
		pr_emerg("fault io: %s of %u bytes at sector %llu\n", op_is_write(req_op(rq)) ? "write" : "read",
			 blk_rq_bytes(rq), blk_rq_pos(rq));
	if (how == LOST) {
		blk_mq_start_request(rq);
		blk_mq_end_request(rq, BLK_STS_OK);
		return BLK_STS_OK;
	}
	status = queue(hctx, data);
	if (how == EARLY && status == BLK_STS_OK) {
		/* blkfront has made its request; when it ends, nobody is left to be told. */
		bio = rq->bio;
		rq->bio = rq->biotail = NULL;
		rq->__data_len = 0;
		end_early(bio);
	}
	return status;
}

static int replace_queue(void)
{
	struct file *file = bdev_file_open_by_path("/dev/xvda", BLK_OPEN_READ, NULL, NULL);
	struct request_queue *q;

	if (IS_ERR(file))
		return PTR_ERR(file);
	q = bdev_get_queue(file_bdev(file));
	broken = *q->mq_ops;
	queue = broken.queue_rq;
	broken.queue_rq = broken_queue;
	WRITE_ONCE(q->mq_ops, &broken);
	return 0;
}

static int arm_queue(const struct fault *fault, struct plan *plan)
{
	fault_log(fault->name, "the next request\n");
	/* So that it isn't always the first of a group. */
	plan_next(plan);
	WRITE_ONCE(armed, fault->how);
	return 0;
}

const struct fault block_faults[] = {
	{ .name = "io-early", .prepare = replace_queue, .inject = arm_queue, .how = EARLY },
	{ .name = "io-lost", .prepare = replace_queue, .inject = arm_queue, .how = LOST },
	{}
};
