/* NVML as far as it is called here, for tests without a GPU. CARDS: how many there are; INIT: what its start answers; ELSEWHERE: processes have
   other ids, as in a container; NO_PROCESSES: none are listed. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef INIT
#define INIT 0
#endif

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
static const unsigned long long GIB = 1ULL << 30;

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process;

int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the stand-in"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = CARDS; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (index >= CARDS) return INVALID_ARGUMENT;
  *device = (void *)(unsigned long)(index + 1);
  return SUCCESS;
}

static char letter(void *device) { return (char)('a' + (unsigned long)device - 1); }

int nvmlDeviceGetName(void *device, char *name, unsigned length) {
  snprintf(name, length, "Stand-in %c", letter(device) - 'a' + 'A');
  return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
  snprintf(uuid, length, "GPU-%c", letter(device));
  return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory) {
  (void)device;
  memory->total = 8 * GIB;
  memory->free = 3 * GIB;
  memory->used = 4 * GIB;
  memory->reserved = 1 * GIB;
  return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process *list) {
  (void)device;
#ifdef NO_PROCESSES
  (void)count, (void)list;
  return NOT_SUPPORTED;
#else
  if (list == NULL) { *count = 1; return INSUFFICIENT_SIZE; }
  *count = 1;
  memset(list, 0, sizeof *list);
#ifdef ELSEWHERE
  list->pid = 1;
#else
  list->pid = (unsigned)getpid();
#endif
  list->used = GIB;
  return SUCCESS;
#endif
}
