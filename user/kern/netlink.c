/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Netlink. Happy path: one question, one answer. Failures: -errno; nothing stays open. */
#include "kern/netlink.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int netlink_ask(int protocol, const struct nlmsghdr *ask, union netlink_answer *answer)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), err = 0;
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = send(fd, ask, ask->nlmsg_len, 0);
	if (len == (ssize_t)ask->nlmsg_len)
		len = recv(fd, answer, sizeof(*answer), 0);
	else if (len >= 0)
		len = 0; /* the question went out in part: there is no answer */
	if (len < 0)
		err = -errno;
	else if (!NLMSG_OK(&answer->n, len))
		err = -EPROTO;
	else if (answer->n.nlmsg_type == NLMSG_ERROR)
		err = ((const struct nlmsgerr *)NLMSG_DATA(&answer->n))->error;
	close(fd);
	return err;
}
