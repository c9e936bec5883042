/* A scripted stand-in for NVIDIA's management library: two cards that draw 250 and 100 watts. */

#include <string.h>
#include <time.h>

enum { OK = 0, NOT_SUPPORTED = 3 };

typedef struct { unsigned int gpu, memory; } utilization;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2;

static const unsigned int watts[2] = {250, 100};

static unsigned int card(const void *device) { return (unsigned int)((const unsigned int *)device - watts); }

int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    strncpy(version, "580.00.01", length);
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = 2;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, const void **device) {
    *device = &watts[index];
    return OK;
}

int nvmlDeviceGetName(const void *device, char *name, unsigned int length) {
    strncpy(name, card(device) ? "second card" : "first card", length);
    return OK;
}

int nvmlDeviceGetUtilizationRates(const void *device, utilization *rates) {
    rates->gpu = card(device) ? 50 : 80;
    rates->memory = 7;
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(const void *device, memory_v2 *memory) {
    memory->total = 80ULL << 30;
    memory->used = (card(device) ? 2ULL : 1ULL) << 30;
    return OK;
}

/* Milliwatts. */
int nvmlDeviceGetPowerUsage(const void *device, unsigned int *power) {
    *power = watts[card(device)] * 1000;
    return OK;
}

/* Millijoules. The second card has no counter. */
int nvmlDeviceGetTotalEnergyConsumption(const void *device, unsigned long long *energy) {
    struct timespec now;
    if (card(device)) return NOT_SUPPORTED;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *energy = watts[0] * (now.tv_sec * 1000ULL + now.tv_nsec / 1000000ULL);
    return OK;
}

int nvmlDeviceGetTemperature(const void *device, int sensor, unsigned int *degrees) {
    *degrees = 61 + card(device);
    return sensor == 0 ? OK : NOT_SUPPORTED;
}

/* 1: multiprocessors, 2: memory. */
int nvmlDeviceGetClockInfo(const void *device, int clock, unsigned int *mhz) {
    (void)device;
    *mhz = clock == 1 ? 1980 : clock == 2 ? 2619 : 0;
    return OK;
}

/* KiB per second; 0: sent, 1: received. */
int nvmlDeviceGetPcieThroughput(const void *device, int way, unsigned int *kib) {
    (void)device;
    *kib = way == 1 ? 2048 : 1024;
    return OK;
}

/* Nobody computes. */
int nvmlDeviceGetComputeRunningProcesses_v3(const void *device, unsigned int *count, void *processes) {
    (void)device;
    (void)processes;
    *count = 0;
    return OK;
}
