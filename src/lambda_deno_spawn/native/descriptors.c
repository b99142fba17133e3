#define _GNU_SOURCE
#include "descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "files.h"
#include "system.h"
#include "text.h"
#include "threads.h"

enum {
  DESCRIPTORS_LIMIT = 128, /* Deno 2.9 has 20 */
  REGISTRATIONS_LIMIT = 64,
  PATH_SIZE = 320,
  INFO_SIZE = 8192,
};

enum kind {
  STDIO_COPY, /* replaced together with 0, 1 or 2 */
  EPOLL,      /* made anew, with the same registrations */
  EVENTFD,    /* made anew, with the same count */
  PAIR,       /* a socket whose other end is here too: made anew, both */
  READ_FILE,  /* opened again: its position is then its own */
  DATABASE,   /* Deno's caches: an empty file of the child's own stands for it */
  LEFT_ALONE, /* has no state */
};

struct descriptor {
  int number;
  enum kind kind;
  /* Those of one number are one thing: the first of them; its own if it is the first. */
  int first;
  int status;  /* fcntl F_GETFL */
  int options; /* fcntl F_GETFD */
  ino_t inode;
  /* STDIO_COPY: of which; EVENTFD: its count; PAIR: the other end's first. */
  int64_t value;
};

struct planned_registration {
  int instance; /* index of the epoll descriptor */
  struct registration what;
};

static struct descriptor plan[DESCRIPTORS_LIMIT];
static int count;
static struct planned_registration registrations[REGISTRATIONS_LIMIT];
static int registrations_count;

static bool refuse_number(struct refusal *why, enum code code, const char *what,
                          int number, const char *link) {
  return refuse(why, code, 0, "%s (descriptor %d, %.60s)", what, number, link);
}

static bool failed(struct refusal *why, const char *what, int number) {
  return refuse(why, SYSTEM, errno, "%s of descriptor %d", what, number);
}

static bool is_link(const char *link, const char *what) {
  return strcmp(link, what) == 0;
}

static bool starts(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

/* Devices without a state: null, zero, full, random, urandom. */
static bool is_stateless_device(const struct stat *status) {
  static const unsigned minors[] = {3, 5, 7, 8, 9};
  if (!S_ISCHR(status->st_mode) || major(status->st_rdev) != 1) return false;
  for (size_t i = 0; i < sizeof minors / sizeof *minors; i++)
    if (minor(status->st_rdev) == minors[i]) return true;
  return false;
}

/* A descriptor of the same file with a position of its own. */
static int open_again(const struct descriptor *which) {
  char path[64];
  format(path, sizeof path, "/proc/self/fd/%d", which->number);
  int kept = which->status & (O_NONBLOCK | O_DIRECT | O_NOATIME | O_DIRECTORY);
  return open(path, O_RDONLY | O_CLOEXEC | kept);
}

static bool plan_regular(struct descriptor *new, const char *link, struct refusal *why) {
  int access = new->status & O_ACCMODE;
  if (access == O_RDONLY) {
    new->kind = READ_FILE;
    int again = open_again(new);
    if (again < 0)
      return refuse(why, SYSTEM, errno, "descriptor %d cannot be opened again (%.60s)",
                    new->number, link);
    close(again);
    return true;
  }
  if (!is_cache_database(link))
    return refuse_number(why, FILE_FOR_WRITING, "a file open for writing", new->number,
                         link);
  new->kind = DATABASE;
  return true;
}

/* The kinds of anonymous inodes that stand for something a child would share. */
static bool refuse_anonymous(struct refusal *why, int number, const char *link) {
  if (strstr(link, "inotify") != NULL || strstr(link, "fanotify") != NULL)
    return refuse_number(why, WATCHER, "a watcher of files", number, link);
  if (strstr(link, "pidfd") != NULL)
    return refuse_number(why, CHILD_PROCESS, "a process", number, link);
  return refuse_number(why, DESCRIPTOR, "a descriptor of an unknown kind", number, link);
}

static bool plan_socket(struct descriptor *new, const char *link, struct refusal *why) {
  struct sockaddr_un name, peer;
  socklen_t name_size = sizeof name, peer_size = sizeof peer;
  int type = 0;
  socklen_t type_size = sizeof type;
  int in = -1, out = -1;
  new->kind = PAIR;
  /* A pair of Unix sockets has no names. Nothing may be on its way in one. */
  if (getsockopt(new->number, SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 &&
      type == SOCK_STREAM &&
      getsockname(new->number, (struct sockaddr *)&name, &name_size) == 0 &&
      name.sun_family == AF_UNIX && name_size == sizeof(sa_family_t) &&
      getpeername(new->number, (struct sockaddr *)&peer, &peer_size) == 0 &&
      peer.sun_family == AF_UNIX && peer_size == sizeof(sa_family_t) &&
      ioctl(new->number, FIONREAD, &in) == 0 && in == 0 &&
      ioctl(new->number, TIOCOUTQ, &out) == 0 && out == 0)
    return true;
  return refuse_number(why, SOCKET, "a socket", new->number, link);
}

static bool plan_one(int number, const struct stat stdio[3], struct refusal *why) {
  char path[64], link[PATH_SIZE];
  struct stat status;
  format(path, sizeof path, "/proc/self/fd/%d", number);
  int error = read_link(path, link, sizeof link);
  if (error < 0)
    return refuse(why, SYSTEM, -error, "descriptor %d cannot be looked at", number);
  if (fstat(number, &status) != 0) return failed(why, "fstat", number);
  if (count == DESCRIPTORS_LIMIT)
    return refuse(why, LIMIT, 0, "more than %d descriptors", DESCRIPTORS_LIMIT);
  struct descriptor *new = &plan[count];
  *new = (struct descriptor){.number = number, .first = count, .inode = status.st_ino};
  new->status = fcntl(number, F_GETFL);
  new->options = fcntl(number, F_GETFD);
  if (new->status < 0 || new->options < 0) return failed(why, "fcntl", number);
  count++;
  bool is_anonymous = starts(link, "anon_inode:");
  for (int i = 0; !is_anonymous && i < 3; i++) {
    if (status.st_ino != stdio[i].st_ino || status.st_dev != stdio[i].st_dev) continue;
    if ((new->status & O_ACCMODE) != (i == 0 ? O_RDONLY : new->status & O_ACCMODE))
      continue;
    new->kind = STDIO_COPY;
    new->value = i;
    return true;
  }
  if (is_link(link, "anon_inode:[eventpoll]")) {
    new->kind = EPOLL;
    return true;
  }
  if (is_link(link, "anon_inode:[eventfd]")) {
    new->kind = EVENTFD;
    return true;
  }
  if (is_anonymous || starts(link, "pidfd:")) return refuse_anonymous(why, number, link);
  if (starts(link, "/memfd:"))
    return refuse_number(why, MEMORY, "memory that processes share", number, link);
  if (S_ISSOCK(status.st_mode)) return plan_socket(new, link, why);
  if (S_ISFIFO(status.st_mode))
    return refuse_number(why, PIPE, "a pipe", number, link);
  if ((S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) && !(new->status & O_PATH))
    return plan_regular(new, link, why);
  if (is_stateless_device(&status) || new->status & O_PATH) {
    new->kind = LEFT_ALONE;
    return true;
  }
  return refuse_number(why, DESCRIPTOR, "a device", number, link);
}

static struct descriptor *find(int number) {
  for (int i = 0; i < count; i++)
    if (plan[i].number == number) return &plan[i];
  return NULL;
}

static bool read_info(int number, char text[INFO_SIZE], struct refusal *why) {
  char path[64];
  format(path, sizeof path, "/proc/self/fdinfo/%d", number);
  int error = read_text(path, text, INFO_SIZE);
  if (error >= 0) return true;
  return refuse(why, SYSTEM, -error, "%s cannot be read", path);
}

/* Which numbers are one instance: adding the same descriptor twice is refused. */
static bool group_epolls(struct refusal *why) {
  int probe = eventfd(0, EFD_CLOEXEC);
  if (probe < 0) return refuse(why, SYSTEM, errno, "eventfd");
  struct epoll_event event = {.events = EPOLLIN};
  bool is_done = true;
  for (int i = 0; i < count && is_done; i++) {
    if (plan[i].kind != EPOLL || plan[i].first != i) continue;
    if (epoll_ctl(plan[i].number, EPOLL_CTL_ADD, probe, &event) != 0) {
      is_done = failed(why, "epoll_ctl", plan[i].number);
      break;
    }
    for (int j = i + 1; j < count; j++) {
      if (plan[j].kind != EPOLL || plan[j].first != j) continue;
      if (epoll_ctl(plan[j].number, EPOLL_CTL_ADD, probe, &event) == 0) {
        epoll_ctl(plan[j].number, EPOLL_CTL_DEL, probe, NULL);
      } else if (errno == EEXIST) {
        plan[j].first = i;
      } else {
        is_done = failed(why, "epoll_ctl", plan[j].number);
        break;
      }
    }
    epoll_ctl(plan[i].number, EPOLL_CTL_DEL, probe, NULL);
  }
  close(probe);
  return is_done;
}

static bool plan_registrations(int instance, struct refusal *why) {
  static char text[INFO_SIZE];
  if (!read_info(plan[instance].number, text, why)) return false;
  const char *at = text;
  bool is_broken;
  struct registration found;
  while (next_registration(&at, &found, &is_broken)) {
    struct descriptor *target = find(found.target);
    /* A number that has been closed stays registered while a copy of it is open. */
    if (target == NULL || target->kind == EPOLL ||
        (target->inode != found.inode && target->kind != EVENTFD))
      return refuse(why, EVENT_LOOP, 0, "the event loop waits for descriptor %d",
                    found.target);
    if (registrations_count == REGISTRATIONS_LIMIT)
      return refuse(why, LIMIT, 0, "more than %d registrations", REGISTRATIONS_LIMIT);
    registrations[registrations_count++] =
        (struct planned_registration){instance, found};
  }
  if (!is_broken) return true;
  return refuse(why, SYSTEM, 0, "fdinfo of an epoll instance is not understood");
}

static bool plan_eventfds(struct refusal *why) {
  static char text[INFO_SIZE];
  uint64_t ids[DESCRIPTORS_LIMIT];
  int found = 0;
  for (int i = 0; i < count; i++) {
    if (plan[i].kind != EVENTFD) continue;
    if (!read_info(plan[i].number, text, why)) return false;
    uint64_t value, semaphore = 0;
    if (!find_number(text, "eventfd-count", 16, &value) || value > UINT32_MAX)
      return refuse(why, SYSTEM, 0, "fdinfo of an eventfd is not understood");
    if (find_number(text, "eventfd-semaphore", 10, &semaphore) && semaphore != 0)
      return refuse(why, DESCRIPTOR, 0, "a semaphore (descriptor %d)", plan[i].number);
    plan[i].value = (int64_t)value;
    bool has_id = find_number(text, "eventfd-id", 10, &ids[i]);
    found++;
    if (!has_id) ids[i] = UINT64_MAX;
    if (!has_id && found > 1) /* Linux before 5.2: two may be one */
      return refuse(why, SYSTEM, 0, "more than one eventfd, and no numbers of them");
    for (int j = 0; j < i; j++)
      if (plan[j].kind == EVENTFD && plan[j].first == j && ids[j] == ids[i])
        plan[i].first = j;
  }
  return true;
}

/* True if the process that made the other end is this one. It has no child processes, as
 * has been checked, so the other end is here. */
static bool is_made_here(int number) {
  struct ucred peer;
  socklen_t size = sizeof peer;
  return getsockopt(number, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         peer.pid == getpid();
}

/* Finds the other end: what is written to one comes out there. Nothing else reads now, as
 * all other threads are parked; and whoever waits for such a byte looks at what else was
 * written when it comes. */
static bool pair_up(int one, struct refusal *why) {
  char sent = 'x', got;
  if (is_made_here(plan[one].number) &&
      send(plan[one].number, &sent, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1) {
    for (int other = 0; other < count; other++) {
      if (plan[other].kind != PAIR || plan[other].first != other) continue;
      if (other == one || recv(plan[other].number, &got, 1, MSG_DONTWAIT) != 1) continue;
      plan[one].value = other;
      plan[other].value = one;
      return true;
    }
  }
  return refuse(why, SOCKET, 0, "a socket (descriptor %d), connected to elsewhere",
                plan[one].number);
}

static bool plan_pairs(struct refusal *why) {
  for (int i = 0; i < count; i++) {
    if (plan[i].kind != PAIR) continue;
    plan[i].value = -1;
    for (int j = 0; j < i; j++)
      if (plan[j].kind == PAIR && plan[j].first == j && plan[j].inode == plan[i].inode)
        plan[i].first = j;
  }
  for (int i = 0; i < count; i++) {
    if (plan[i].kind != PAIR || plan[i].first != i || plan[i].value >= 0) continue;
    if (!pair_up(i, why)) return false;
  }
  return true;
}

bool plan_descriptors(const int *ours, int ours_count, struct refusal *why) {
  static int numbers[DESCRIPTORS_LIMIT + 8];
  struct stat stdio[3];
  for (int i = 0; i < 3; i++)
    if (fstat(i, &stdio[i]) != 0) return failed(why, "fstat", i);
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < i; j++)
      if (stdio[i].st_ino == stdio[j].st_ino && stdio[i].st_dev == stdio[j].st_dev)
        return refuse(why, STDIO, 0, "descriptors %d and %d are the same file", j, i);
  count = registrations_count = 0;
  int found = list_numbers("/proc/self/fd", numbers, DESCRIPTORS_LIMIT + 8);
  if (found == -EOVERFLOW)
    return refuse(why, LIMIT, 0, "more than %d descriptors", DESCRIPTORS_LIMIT);
  if (found < 0) return refuse(why, SYSTEM, -found, "descriptors cannot be listed");
  for (int i = 0; i < found; i++) {
    bool is_ours = numbers[i] <= 2;
    for (int j = 0; j < ours_count; j++) is_ours = is_ours || numbers[i] == ours[j];
    if (!is_ours && !plan_one(numbers[i], stdio, why)) return false;
  }
  if (!group_epolls(why) || !plan_eventfds(why) || !plan_pairs(why)) return false;
  for (int i = 0; i < count; i++)
    if (plan[i].kind == EPOLL && plan[i].first == i && !plan_registrations(i, why))
      return false;
  int readers[8];
  int readers_count = descriptors_of_readers(readers, 8);
  for (int i = 0; i < readers_count; i++) {
    struct descriptor *from = find(readers[i]);
    if (from == NULL || from->kind != PAIR)
      return refuse(why, THREAD, 0, "a thread that reads descriptor %d", readers[i]);
  }
  return true;
}

/* ---- In a child ---- */

static bool child_failed(struct refusal *why, const char *what, int number) {
  return refuse(why, CHILD_FAILED, errno, "%s (descriptor %d)", what, number);
}

/* Puts one descriptor in the place of all that were the same thing. */
static bool put(int fresh, int first, struct refusal *why) {
  for (int i = first; i < count; i++) {
    if (plan[i].kind != plan[first].kind || plan[i].first != first) continue;
    int options = plan[i].options & FD_CLOEXEC ? O_CLOEXEC : 0;
    if (dup3(fresh, plan[i].number, options) < 0)
      return child_failed(why, "dup3", plan[i].number);
  }
  return true;
}

static bool put_and_close(int fresh, int first, struct refusal *why) {
  bool is_put = put(fresh, first, why);
  close(fresh);
  return is_put;
}

static bool take_stdio(const int stdio[3], struct refusal *why) {
  for (int i = 0; i < 3; i++)
    if (dup2(stdio[i], i) < 0) return child_failed(why, "dup2", i);
  for (int i = 0; i < count; i++) {
    if (plan[i].kind != STDIO_COPY) continue;
    int options = plan[i].options & FD_CLOEXEC ? O_CLOEXEC : 0;
    if (dup3(stdio[plan[i].value], plan[i].number, options) < 0)
      return child_failed(why, "dup3", plan[i].number);
  }
  for (int i = 0; i < 3; i++) close(stdio[i]);
  return true;
}

static bool renew_pair(int one, struct refusal *why) {
  int other = (int)plan[one].value, fresh[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fresh) != 0)
    return child_failed(why, "socketpair", plan[one].number);
  for (int i = 0; i < 2; i++) {
    int status = plan[i == 0 ? one : other].status;
    if (fcntl(fresh[i], F_SETFL, status & (O_NONBLOCK | O_ASYNC)) != 0)
      return child_failed(why, "fcntl", fresh[i]);
  }
  bool is_put = put_and_close(fresh[0], one, why);
  return put_and_close(fresh[1], other, why) && is_put;
}

static bool reopen(int at, struct refusal *why) {
  int number = plan[at].number;
  off_t position = lseek(number, 0, SEEK_CUR);
  int fresh = open_again(&plan[at]);
  if (fresh < 0) return child_failed(why, "open", number);
  if (position > 0 && lseek(fresh, position, SEEK_SET) != position)
    return child_failed(why, "lseek", number);
  return put_and_close(fresh, at, why);
}

static bool replace_databases(struct refusal *why) {
  int fresh = -1;
  for (int i = 0; i < count; i++) {
    if (plan[i].kind != DATABASE) continue;
    if (fresh < 0) fresh = (int)syscall(SYS_memfd_create, "no-cache", 1u /* CLOEXEC */);
    if (fresh < 0) return child_failed(why, "memfd_create", plan[i].number);
    if (!put(fresh, i, why)) return false;
  }
  if (fresh >= 0) close(fresh);
  return true;
}

bool renew_descriptors(const int stdio[3], struct refusal *why) {
  if (!take_stdio(stdio, why)) return false;
  if (!replace_databases(why)) return false;
  for (int i = 0; i < count; i++) {
    if (plan[i].first != i) continue;
    if (plan[i].kind == EVENTFD) {
      int flags = EFD_CLOEXEC | (plan[i].status & O_NONBLOCK ? EFD_NONBLOCK : 0);
      int fresh = eventfd((unsigned)plan[i].value, flags);
      if (fresh < 0) return child_failed(why, "eventfd", plan[i].number);
      if (!put_and_close(fresh, i, why)) return false;
    } else if (plan[i].kind == PAIR && plan[i].value > i) {
      if (!renew_pair(i, why)) return false;
    } else if (plan[i].kind == READ_FILE && !reopen(i, why)) {
      return false;
    }
  }
  /* Last: what is registered is the child's own by now. */
  for (int i = 0; i < count; i++) {
    if (plan[i].kind != EPOLL || plan[i].first != i) continue;
    int fresh = epoll_create1(EPOLL_CLOEXEC);
    if (fresh < 0) return child_failed(why, "epoll_create1", plan[i].number);
    for (int j = 0; j < registrations_count; j++) {
      if (registrations[j].instance != i) continue;
      const struct registration *what = &registrations[j].what;
      struct epoll_event event = {.events = what->events, .data.u64 = what->data};
      if (epoll_ctl(fresh, EPOLL_CTL_ADD, what->target, &event) != 0)
        return child_failed(why, "epoll_ctl", what->target);
    }
    if (!put_and_close(fresh, i, why)) return false;
  }
  return true;
}
