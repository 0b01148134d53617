/* Another disk under the gateway, preloaded. Built with NO_FLUSH, the flush of a log (`*-wal`) does
   nothing: that is how SQLite commits with `synchronous = NORMAL`. Built with SLOW_US, each write
   and each flush of a file takes so many microseconds more, and then is what it was. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef NO_FLUSH

/* Whether it is a log beside a database. */
static int is_log(int file) {
    char link[32], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, name, sizeof name);
    return size > 4 && memcmp(name + size - 4, "-wal", 4) == 0;
}

int fsync(int file) { return is_log(file) ? 0 : (int)syscall(SYS_fsync, file); }
int fdatasync(int file) { return is_log(file) ? 0 : (int)syscall(SYS_fdatasync, file); }

#else

static void take_time(int file) {
    struct stat about;
    if (fstat(file, &about) == 0 && S_ISREG(about.st_mode)) usleep(SLOW_US);
}

int fsync(int file) {
    take_time(file);
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    take_time(file);
    return (int)syscall(SYS_fdatasync, file);
}

ssize_t write(int file, const void *from, size_t size) {
    take_time(file);
    return syscall(SYS_write, file, from, size);
}

ssize_t pwrite64(int file, const void *from, size_t size, off64_t at) {
    take_time(file);
    return syscall(SYS_pwrite64, file, from, size, at);
}

ssize_t pwrite(int file, const void *from, size_t size, off_t at) { return pwrite64(file, from, size, at); }

#endif
