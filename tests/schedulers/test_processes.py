"""Two processes, as accelerate runs them: a scheduler sent midway goes on as the one that stayed."""

import os
import socket

import torch
from forks import processes
from scheduler_cases import BASES, noise, run, velocity

#: Steps done before a scheduler is sent: one above xi, where multistep history matters, and one below.
DONE = (5, 14)


def midway(base, done):
    """A scheduler after `done` steps from fixed noise, and its sample."""
    scheduler = base.stablevs(**base.config, noise_factor=0.3)
    scheduler.generator = torch.Generator().manual_seed(7)
    scheduler.set_timesteps(30)
    x = noise(2, 4)
    for timestep in scheduler.timesteps[:done]:
        x = scheduler.step(velocity(x, timestep), timestep, x, return_dict=False)[0]
    return scheduler, x


def process(rank, port, folder):
    from accelerate import PartialState
    from accelerate.utils import gather_object

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    state = PartialState(cpu=True, backend="gloo")
    assert state.num_processes == 2
    # Only the second process has anything to send.
    sent = [midway(base, done) for base in BASES.values() for done in DONE] if rank == 1 else []
    received = gather_object(sent)
    if rank == 0:
        ends = [run(scheduler, x, start=done)[-1] for (scheduler, x), done in zip(received, DONE * 3, strict=True)]
        torch.save(ends, folder / "ends.pt")
    state.wait_for_everyone()
    torch.distributed.destroy_process_group()


def test_what_accelerate_gathers_from_another_process_goes_on_as_the_original(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [processes().Process(target=process, args=(rank, port, tmp_path)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    ends = torch.load(tmp_path / "ends.pt")
    assert len(ends) == 6
    pairs = [(base, done) for base in BASES.values() for done in DONE]
    for end, (base, done) in zip(ends, pairs, strict=True):
        scheduler, x = midway(base, done)
        assert torch.equal(end, run(scheduler, x, start=done)[-1])
