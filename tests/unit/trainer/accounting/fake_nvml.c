/* A driver library with two GPUs whose state is a text file of `GPU.KEY=VALUE` lines, named by FAKE_NVML.
   A negative value is returned as that error code; a key that is missing is 0. With -DOLD newer functions are absent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int index; char uuid[64]; } Gpu;
typedef struct { Gpu *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } Event;
typedef struct { Gpu *device; int told; } EventSet;

static Gpu gpus[2] = {{0, "GPU-00000000-0000-0000-0000-000000000000"}, {1, "GPU-11111111-1111-1111-1111-111111111111"}};

static long long state(const Gpu *gpu, const char *key) {
    char wanted[64], line[128];
    long long found = 0;
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    int length = snprintf(wanted, sizeof wanted, "%d.%s=", gpu->index, key);
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, wanted, length)) found = atoll(line + length);
    if (file) fclose(file);
    return found;
}

#define ANSWER(type, target, key) \
    do { long long found = state(gpu, key); if (found < 0) return (int)-found; *(target) = (type)found; } while (0)

int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) { *gpu = &gpus[index]; return index < 2 ? 0 : 2; }
int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned length) { snprintf(uuid, length, "%s", gpu->uuid); return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, Gpu **gpu) {
    for (int i = 0; i < 2; i++)
        if (!strcmp(uuid, gpus[i].uuid)) { *gpu = &gpus[i]; return 0; }
    return 6;
}
int nvmlDeviceGetName(Gpu *gpu, char *name, unsigned length) { snprintf(name, length, "NVIDIA A100-SXM4-40GB"); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(Gpu *gpu, unsigned long long *mj) { ANSWER(unsigned long long, mj, "energy"); return 0; }
int nvmlDeviceGetTemperature(Gpu *gpu, int sensor, unsigned *degrees) { ANSWER(unsigned, degrees, "temperature"); return 0; }
int nvmlDeviceGetTemperatureThreshold(Gpu *gpu, int kind, unsigned *degrees) { *degrees = 90 + (kind == 0 ? 5 : 0); return 0; }
int nvmlDeviceGetTotalEccErrors(Gpu *gpu, int type, int period, unsigned long long *count) {
    if (type != 1) { *count = 77; return 0; }
    ANSWER(unsigned long long, count, period ? "aggregate" : "volatile");
    return 0;
}
int nvmlDeviceGetRetiredPages(Gpu *gpu, int cause, unsigned *count, unsigned long long *addresses) {
    unsigned pages;
    ANSWER(unsigned, &pages, cause ? "double_bit" : "single_bit");
    if (*count < pages || !addresses) { *count = pages; return pages ? 7 : 0; }
    for (unsigned i = 0; i < pages; i++) addresses[i] = 4096 * i;
    *count = pages;
    return 0;
}
int nvmlDeviceGetRetiredPagesPendingStatus(Gpu *gpu, int *pending) { ANSWER(int, pending, "retiring"); return 0; }

int nvmlEventSetCreate(EventSet **set) { *set = calloc(1, sizeof **set); return 0; }
int nvmlEventSetFree(EventSet *set) { free(set); return 0; }
int nvmlDeviceRegisterEvents(Gpu *gpu, unsigned long long types, EventSet *set) {
    if (types != 8) return 2;
    set->device = gpu;
    return 0;
}
int nvmlEventSetWait_v2(EventSet *set, Event *event, unsigned timeout_ms) {
    char key[16];
    snprintf(key, sizeof key, "xid%d", set->told);
    long long xid = set->device ? state(set->device, key) : 0;
    if (timeout_ms || !xid) return 10;
    if (xid < 0) return (int)-xid;
    set->told++;
    *event = (Event){set->device, 8, (unsigned long long)xid, 0, 0};
    return 0;
}
#ifndef OLD
int nvmlDeviceGetMigMode(Gpu *gpu, unsigned *current, unsigned *pending) {
    ANSWER(unsigned, current, "mig");
    *pending = *current;
    return 0;
}
static Gpu parts[2] = {{0, "MIG-22222222-2222-2222-2222-222222222222"}, {0, "MIG-33333333-3333-3333-3333-333333333333"}};
int nvmlDeviceGetMaxMigDeviceCount(Gpu *gpu, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(Gpu *gpu, unsigned index, Gpu **part) {
    if (index > 1) return 6;
    *part = &parts[index];
    return 0;
}
int nvmlDeviceGetRemappedRows(Gpu *gpu, unsigned *right, unsigned *wrong, unsigned *pending, unsigned *failed) {
    ANSWER(unsigned, right, "corrected_rows");
    ANSWER(unsigned, wrong, "uncorrected_rows");
    ANSWER(unsigned, pending, "remapping");
    ANSWER(unsigned, failed, "remapping_failed");
    return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, unsigned long long *reasons) {
    ANSWER(unsigned long long, reasons, "throttling");
    return 0;
}
#endif
