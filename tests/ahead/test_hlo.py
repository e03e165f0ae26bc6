"""Collectives and traffic of programs written by hand, whose sums are known."""

import numpy as np
import pytest

from beit_jax.ahead.collectives import Collective, collectives
from beit_jax.ahead.hlo import Program, size
from beit_jax.ahead.traffic import traffic

MESH = {"data": 2, "fsdp": 2, "tensor": 2}
ONE_HOST = np.zeros(8, int)

# A loop of five turns over a stack; its condition is `index < 5`.
LOOP = """HloModule step, entry_computation_layout={(f32[5,256]{1,0})->f32[256]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (carry: (s32[], f32[256], f32[5,256])) -> (s32[], f32[256], f32[5,256]) {
  %carry = (s32[], f32[256]{0}, f32[5,256]{1,0}) parameter(0)
  %index = s32[] get-tuple-element(%carry), index=0
  %x.1 = f32[256]{0} get-tuple-element(%carry), index=1
  %stack = f32[5,256]{1,0} get-tuple-element(%carry), index=2
  %all = f32[256]{0} all-reduce(%x.1), channel_id=1, GROUPS, to_apply=%add
  ROOT %next = (s32[], f32[256]{0}, f32[5,256]{1,0}) tuple(%index, %all, %stack)
}

%condition (carry.1: (s32[], f32[256], f32[5,256])) -> pred[] {
  %carry.1 = (s32[], f32[256]{0}, f32[5,256]{1,0}) parameter(0)
  %index.1 = s32[] get-tuple-element(%carry.1), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%index.1, %limit), direction=LT
}

ENTRY %main (stack.1: f32[5,256]) -> f32[256] {
  %stack.1 = f32[5,256]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = f32[256]{0} broadcast(%zero), dimensions={}
  %init = (s32[], f32[256], /*index=2*/f32[5,256]) tuple(%zero, %start, %stack.1)
  %loop = (s32[], f32[256], f32[5,256]) while(%init), condition=%condition, body=%body
  ROOT %result = f32[256]{0} get-tuple-element(%loop), index=1
}
"""


def entry(*lines: str) -> Program:
    """A program of these operations after `%x`, 1 KiB, of eight devices."""
    head = "ENTRY %main (x: f32[256]) -> f32[256] {\n  %x = f32[256]{0} parameter(0)\n"
    return Program(head + "".join(f"  {line}\n" for line in lines) + "}\n")


def looped(groups: str, text: str = LOOP) -> list[Collective]:
    return collectives(Program(text.replace("GROUPS", groups)), MESH, ONE_HOST)


def test_a_collective_in_a_loop_counts_every_turn():
    (found,) = looped("replica_groups={{0,4},{1,5},{2,6},{3,7}}")
    sent = 5 * 2 * 1024 * (1 / 2)  # of two devices each sends half, twice
    assert found == Collective("all-reduce", ("data",), 0, 5, 5 * 1024, sent)


def test_the_turns_that_the_compiler_notes_win():
    told = 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    (found,) = looped("replica_groups={}", LOOP.replace("body=%body", told))
    assert found.count == 7 and found.axes == ("data", "fsdp", "tensor")


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    text = LOOP.replace("s32[] constant(5)", "s32[] get-tuple-element(%carry.1)")
    program = Program(text.replace("GROUPS", "replica_groups={}"))
    assert collectives(program, MESH, ONE_HOST)[0].count == 1
    assert program.unknown == ["loop"]


@pytest.mark.parametrize(
    "groups, axes",
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",)),
        ("{{0,2},{1,3},{4,6},{5,7}}", ("fsdp",)),
        ("[4,2]<=[8]", ("tensor",)),
        ("[4,2]<=[2,4]T(1,0)", ("data",)),
        ("[2,4]<=[4,2]T(1,0)", ("data", "fsdp")),
        ("[1,8]<=[8]", ("data", "fsdp", "tensor")),
        ("mesh['a'=8,'b'=1] {'a','b'}", ("data", "fsdp", "tensor")),
        ("mesh['a'=2,'b'=1,'c'=4] {'a'}", ("data",)),
        ("mesh['a'=2,'c'=4], device_ids=([4,2]T(1,0)) {'a'}", ("tensor",)),
        ("mesh['a'=2,'c'=4], device_ids=([4,2]T(1,0)) {'c'}", ("data", "fsdp")),
        ("mesh['a'=8] {'a':(2)2}", ("fsdp",)),
    ],
)
def test_the_axes_of_a_group_are_those_along_which_it_goes(groups, axes):
    (found,) = looped(f"replica_groups={groups}, use_global_device_ids=true")
    assert found.axes == axes


def test_groups_of_one_send_nothing():
    assert not looped("replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}")


@pytest.mark.parametrize(
    "line, whole, sent",
    [
        ("f32[256]{0} all-reduce(%x), GROUPS, to_apply=%add", 1024, 2 * 768),
        ("f32[1024]{0} all-gather(%x), GROUPS, dimensions={0}", 4096, 3072),
        ("f32[64]{0} reduce-scatter(%x), GROUPS, to_apply=%add", 1024, 768),
        ("f32[256]{0} all-to-all(%x), GROUPS, dimensions={0}", 1024, 768),
    ],
)
def test_what_a_device_of_four_sends_around_a_ring(line, whole, sent):
    line = line.replace("GROUPS", "replica_groups=[2,4]<=[8]")
    (found,) = collectives(entry(f"ROOT %y = {line}"), MESH, ONE_HOST)
    assert (found.bytes, found.sent) == (whole, sent)


def test_a_pair_that_is_started_and_done_counts_once():
    program = entry(
        "%s = (f32[256]{0}, f32[512]{0}) all-gather-start(%x), "
        "replica_groups=[4,2]<=[8], dimensions={0}",
        "ROOT %d = f32[512]{0} all-gather-done(%s)",
    )
    (found,) = collectives(program, MESH, ONE_HOST)
    assert (found.count, found.bytes) == (1, 2048)


ASYNC = """%going.1 (p: f32[256]) -> f32[512] {
  %p = f32[256]{0} parameter(0)
  ROOT %g = f32[512]{0} all-gather(%p), channel_id=3, replica_groups=[4,2]<=[8]
}

%going.2 (p: f32[256]) -> f32[512] {
  %p = f32[256]{0} parameter(0)
  ROOT %g = f32[512]{0} all-gather(%p), channel_id=3, replica_groups=[4,2]<=[8]
}

ENTRY %main (x: f32[256]) -> f32[512] {
  %x = f32[256]{0} parameter(0)
  %start = f32[512]{0} fusion(%x), kind=kCustom, calls=%going.1
  ROOT %done = f32[512]{0} fusion(%start), kind=kCustom, calls=%going.2
}
"""


def test_one_that_goes_on_during_several_fusions_counts_once():
    (found,) = collectives(Program(ASYNC), MESH, ONE_HOST)
    assert (found.kind, found.count) == ("all-gather", 1)


def test_a_reduction_of_which_a_fusion_keeps_a_part_is_scattered():
    text = ASYNC.replace("going", "all-reduce-scatter").replace(
        "all-gather", "all-reduce"
    )
    (found,) = collectives(Program(text), MESH, ONE_HOST)
    assert (found.kind, found.sent) == ("reduce-scatter", 512)


def test_a_permutation_goes_along_the_axes_of_its_pairs():
    program = entry(
        "ROOT %p = f32[256]{0} collective-permute(%x), "
        "source_target_pairs={{0,2},{2,0},{1,3},{3,1}}"
    )
    (found,) = collectives(program, MESH, ONE_HOST)
    assert (found.axes, found.sent) == (("fsdp",), 1024)


def test_groups_that_leave_their_host_are_told():
    program = entry("ROOT %y = f32[256]{0} all-reduce(%x), replica_groups={{0,1,4,5}}")
    two = np.repeat([0, 1], 4)
    assert collectives(program, MESH, two)[0].beside == 2
    assert collectives(program, MESH, ONE_HOST)[0].beside == 0


def test_sizes_of_arrays_and_tuples():
    assert size("bf16[2,3]{1,0:T(8,128)(2,1)}") == 12
    assert size("(f32[], pred[7]{0}, /*index=2*/s4[4]{0}, token[])") == 4 + 7 + 2
    assert size("(f32[8]{0:T(8)S(1)}, f32[8]{0})", on_chip=False) == 32


def test_an_operation_reads_its_operands_and_writes_its_result():
    program = entry(
        "%y = f32[256]{0} add(%x, %x)",
        "%b = f32[16,16]{1,0} bitcast(%y)",
        "ROOT %z = bf16[256]{0} convert(%y)",
    )
    assert traffic(program) == 3 * 1024 + 1024 + 512


FUSED = """%fused (stack: f32[5,256], at: s32[], new: f32[256]) -> f32[5,256] {
  %stack = f32[5,256]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %new = f32[256]{0} parameter(2)
  %row = f32[1,256]{1,0} bitcast(%new)
  ROOT %put = f32[5,256]{1,0} dynamic-update-slice(%stack, %row, %at)
}

ENTRY %main (stack.1: f32[5,256], at.1: s32[], new.1: f32[256]) -> f32[5,256] {
  %stack.1 = f32[5,256]{1,0} parameter(0)
  %at.1 = s32[] parameter(1)
  %new.1 = f32[256]{0} parameter(2)
  ROOT %f = f32[5,256]{1,0} fusion(%stack.1, %at.1, %new.1), kind=kLoop, calls=%fused
}
"""


def test_a_fusion_that_fills_a_row_of_a_stack_moves_that_row():
    assert traffic(Program(FUSED)) == 1024 + 4 + 1024


def test_a_fusion_that_takes_a_row_of_a_stack_moves_that_row():
    text = FUSED.replace(
        "ROOT %put = f32[5,256]{1,0} dynamic-update-slice(%stack, %row, %at)",
        "ROOT %put = f32[1,256]{1,0} dynamic-slice(%stack, %at, %at)",
    ).replace("ROOT %f = f32[5,256]", "ROOT %f = f32[1,256]")
    assert traffic(Program(text)) == 1024 + 4 + 1024
