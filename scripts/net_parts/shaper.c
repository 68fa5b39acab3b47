/*
 * The far part of a link between two network namespaces: packets leave one TUN device, are lost by chance, wait, and
 * enter the other. The rate is not limited here but by tbf in front of each device.
 *
 *     shaper HOST_NAMESPACE HOST_DEVICE BOX_NAMESPACE BOX_DEVICE
 *
 * Namespaces are paths. Prints "ready", then answers each line of standard input with one line; ends with its input,
 * and the devices with it. Delays are nanoseconds one way, losses packets in a million, `cut` a sum of 1 (to the box)
 * and 2 (to the host):
 *
 *     shape DELAY LOSS SEED    ok
 *     cut WAYS                 ok
 *     count                    for each way: passed, lost by chance, lost to the cut, lost for want of room
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 16384, MOST_BYTES = 64 << 20, AT_A_TIME = 64, LARGEST = 65535 + 64, LINE = 256 };

struct packet {
    uint64_t due;
    size_t size;
    char bytes[];
};

/* One direction: packets in the order in which they came, which is that of their times. */
struct way {
    int from, to, cut;
    struct packet *queue[SLOTS];
    unsigned head, count;
    size_t bytes;
    uint64_t dice;
    unsigned long passed, unlucky, severed, crowded;
};

static struct way ways[2];
static uint64_t delay;
static unsigned loss;

static void fail(const char *what)
{
    fprintf(stderr, "shaper: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* A file of a namespace, by its path. */
static int space(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        fail(path);
    return fd;
}

static void enter(int space)
{
    if (setns(space, CLONE_NEWNET) < 0)
        fail("setns");
    close(space);
}

/* A device that belongs to the namespace, whatever namespace this process is in later. */
static int device(const char *namespace, const char *name)
{
    int fd;
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};

    enter(space(namespace));
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        fail("/dev/net/tun");
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        fail(name);
    return fd;
}

/* xorshift64*: the high bits are good dice, and a seed gives the same losses again. */
static unsigned throw(struct way *way)
{
    way->dice ^= way->dice >> 12;
    way->dice ^= way->dice << 25;
    way->dice ^= way->dice >> 27;
    return (unsigned)(((way->dice * 0x2545F4914F6CDD1Dull) >> 32) * 1000000ull >> 32);
}

static void keep(struct way *way, const char *bytes, size_t size, uint64_t due)
{
    struct packet *packet = NULL;

    if (way->count < SLOTS && way->bytes + size <= MOST_BYTES)
        packet = malloc(sizeof *packet + size);
    if (!packet) {
        way->crowded++;
        return;
    }
    packet->due = due;
    packet->size = size;
    memcpy(packet->bytes, bytes, size);
    way->queue[(way->head + way->count++) % SLOTS] = packet;
    way->bytes += size;
}

static struct packet *next(struct way *way)
{
    struct packet *packet = way->queue[way->head];

    way->head = (way->head + 1) % SLOTS;
    way->count--;
    way->bytes -= packet->size;
    return packet;
}

static void take(struct way *way)
{
    static char buffer[LARGEST];

    for (int turn = 0; turn < AT_A_TIME; turn++) {
        ssize_t size = read(way->from, buffer, sizeof buffer);
        if (size <= 0)
            return;
        if (way->cut)
            way->severed++;
        else if (loss && throw(way) < loss)
            way->unlucky++;
        else
            keep(way, buffer, (size_t)size, now() + delay);
    }
}

static void deliver(struct way *way)
{
    uint64_t time = now();

    while (way->count && way->queue[way->head]->due <= time) {
        struct packet *packet = next(way);
        if (write(way->to, packet->bytes, packet->size) < 0)
            way->crowded++;
        else
            way->passed++;
        free(packet);
    }
}

/* What is on its way when the cable is pulled is lost too. */
static void sever(struct way *way, int cut)
{
    way->cut = cut;
    while (cut && way->count) {
        way->severed++;
        free(next(way));
    }
}

static void shape(uint64_t new_delay, unsigned new_loss, uint64_t seed)
{
    /* A device that takes what is to be cut into packets whole saves most of the work; losses want single packets. */
    unsigned long offload = new_loss ? 0 : TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;

    delay = new_delay;
    loss = new_loss;
    for (int index = 0; index < 2; index++) {
        ways[index].dice = (seed * 2 + (unsigned)index + 1) * 0x9E3779B97F4A7C15ull | 1;
        if (ioctl(ways[index].from, TUNSETOFFLOAD, offload) < 0)
            fail("TUNSETOFFLOAD");
    }
}

static void obey(const char *line)
{
    unsigned long long first, seed;
    unsigned second;

    if (sscanf(line, "shape %llu %u %llu", &first, &second, &seed) == 3) {
        shape(first, second, seed);
        puts("ok");
    } else if (sscanf(line, "cut %u", &second) == 1) {
        sever(&ways[0], second & 1);
        sever(&ways[1], second & 2);
        puts("ok");
    } else if (strncmp(line, "count", 5) == 0) {
        for (int index = 0; index < 2; index++) {
            struct way *way = &ways[index];
            printf("%lu %lu %lu %lu%c", way->passed, way->unlucky, way->severed, way->crowded, index ? '\n' : ' ');
        }
    } else {
        printf("not understood: %s\n", line);
    }
    fflush(stdout);
}

/* Reads what standard input has; 0 at its end. Whole lines are obeyed. */
static int listen_to_input(void)
{
    static char text[LINE];
    static size_t held;
    char *end;
    ssize_t size = read(STDIN_FILENO, text + held, sizeof text - held - 1);

    if (size <= 0)
        return 0;
    held += (size_t)size;
    text[held] = 0;
    while ((end = strchr(text, '\n'))) {
        *end++ = 0;
        obey(text);
        held -= (size_t)(end - text);
        memmove(text, end, held + 1);
    }
    return held < sizeof text - 1;
}

/* How long nothing is due; NULL for ever. */
static struct timespec *patience(struct timespec *time)
{
    uint64_t due = UINT64_MAX, moment = now();

    for (int index = 0; index < 2; index++)
        if (ways[index].count && ways[index].queue[ways[index].head]->due < due)
            due = ways[index].queue[ways[index].head]->due;
    if (due == UINT64_MAX)
        return NULL;
    due = due > moment ? due - moment : 0;
    time->tv_sec = (time_t)(due / 1000000000u);
    time->tv_nsec = (long)(due % 1000000000u);
    return time;
}

int main(int argc, char **argv)
{
    struct pollfd polled[3] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    struct timespec time;
    int home = space("/proc/self/ns/net");

    if (argc != 5)
        return 2;
    /* The kernel may else be 50 microseconds late with each packet. */
    prctl(PR_SET_TIMERSLACK, 1ul);
    for (int index = 0; index < 2; index++) {
        ways[index].from = ways[!index].to = device(argv[1 + 2 * index], argv[2 + 2 * index]);
        polled[1 + index] = (struct pollfd){.fd = ways[index].from, .events = POLLIN};
    }
    /* It is a part of the link, not of what runs in a box. */
    enter(home);
    shape(0, 0, 0);
    puts("ready");
    fflush(stdout);
    while (ppoll(polled, 3, patience(&time), NULL) >= 0) {
        for (int index = 0; index < 2; index++) {
            if (polled[1 + index].revents)
                take(&ways[index]);
            deliver(&ways[index]);
        }
        if (polled[0].revents && !listen_to_input())
            return 0;
    }
    fail("ppoll");
}
