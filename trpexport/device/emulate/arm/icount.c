/* A plugin of QEMU's user emulation that counts the instructions of an aarch64 program's main
 * thread between two markers.
 *
 * The program marks by closing file descriptors that can't be open, which any language can do and
 * which harms nothing outside the emulator: close(-7001) begins, close(-7002) ends and writes one
 * line to standard error:
 *
 *     [icount] instructions 20231042 fma 1279488
 *
 * "fma" counts NEON's multiply-add instructions (FMLA and FMLS, vector and by element, of half,
 * single and double precision); one of them does up to eight MACs.
 *
 * Build: gcc -O2 -shared -fPIC -o icount.so icount.c
 * QEMU's header qemu-plugin.h comes with its sources alone, so what is used of it (API version 1:
 * QEMU 6.0 to 8.x) is declared here. See "QEMU TCG Plugins" in QEMU's manual.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { BEGIN = -7001, END = -7002, SYSCALL_CLOSE = 57, MAIN_THREAD = 0, NO_REGISTERS = 0 };

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id,
                                                  void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *,
                                                 void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(
    plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t, uint64_t));

struct counts {
    uint64_t instructions, fma;
};
static struct counts now, begun;

/* Encodings: Arm Architecture Reference Manual (DDI 0487), C4.1, "Data Processing -- Scalar
 * Floating-Point and Advanced SIMD". A mask leaves out Q, the size, FMLA or FMLS, the registers. */
static int is_fma(uint32_t word)
{
    return (word & 0xBF20FC00) == 0x0E20CC00     /* vector, single and double */
           || (word & 0xBF60FC00) == 0x0E400C00  /* vector, half */
           || (word & 0xBF80B400) == 0x0F801000  /* by element, single and double */
           || (word & 0xBFC0B400) == 0x0F001000; /* by element, half */
}

/* A translation block always runs from its start; what it holds travels in the pointer itself:
 * instructions in the lower 16 bits, FMAs above. A block has at most 512 instructions. */
static void on_block_run(unsigned thread, void *packed)
{
    uint64_t block = (uintptr_t)packed;
    if (thread == MAIN_THREAD) {
        now.instructions += block & 0xFFFF;
        now.fma += block >> 16;
    }
}

static void on_block_translated(plugin_id id, struct qemu_plugin_tb *block)
{
    uint64_t instructions = qemu_plugin_tb_n_insns(block), fma = 0;
    (void)id;
    for (size_t i = 0; i < instructions; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        fma += is_fma(word);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block_run, NO_REGISTERS,
                                         (void *)(uintptr_t)(instructions | fma << 16));
}

static void on_syscall(plugin_id id, unsigned thread, int64_t number, uint64_t first, uint64_t a2,
                       uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != SYSCALL_CLOSE || thread != MAIN_THREAD)
        return;
    if ((int)first == BEGIN)
        begun = now;
    else if ((int)first == END)
        fprintf(stderr, "[icount] instructions %" PRIu64 " fma %" PRIu64 "\n",
                now.instructions - begun.instructions, now.fma - begun.fma);
}

EXPORT int qemu_plugin_version = 1;

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
