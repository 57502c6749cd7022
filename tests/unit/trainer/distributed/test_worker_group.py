"""How the ranks of a group find each other."""

from trainer.distributed.worker_group import joined_environment


def test_ranks_that_others_start_meet_at_the_leader_on_whatever_network_leads_there() -> None:
    environment = joined_environment(1, 2, "10.0.0.7:29400")
    assert environment == {
        "RANK": "1",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "10.0.0.7",
        "MASTER_PORT": "29400",
    }
    assert joined_environment(0, 2, "127.0.0.1:29400")["GLOO_SOCKET_IFNAME"] == "lo"
