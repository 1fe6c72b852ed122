#!/usr/bin/env python3
"""Transfers on a local network, also while it is cut in two. Runs by pytest, and without it:

CAIRN_NODE=target/release/cairn-node python3 docs/examples/python/test_transfer.py"""

import threading
import time

from cairn import CairnError, Testnet

COIN = 10**9


def test_a_transfer_is_final_on_every_node(net):
    bob = net.accounts["bob"]
    before = net.balance(bob)
    paid = net.faucet(bob, "1.5 CRN")
    for node in ["node1", "node2", "node3", "node4"]:
        assert net.is_final(paid["id"], node, wait=30)
        assert net.balance(bob, node) == before + 3 * COIN // 2


def test_half_a_network_makes_nothing_final(healed):
    net, bob = healed, healed.accounts["bob"]
    net.partition(["node1", "node2"], ["node3", "node4"])
    assert len(net.list()["cut"]) == 4
    # No half has more than two thirds of the voting power, so this waits for the heal.
    answers = []
    payment = threading.Thread(target=lambda: answers.append(net.faucet(bob, "2 CRN")))
    payment.start()
    payment.join(3)
    assert not answers, "a transfer became final while the network was cut in two"
    net.heal()
    payment.join(net.patience)
    assert answers and net.is_final(answers[0]["id"], "node4", wait=30)


def test_three_of_four_go_on_without_the_fourth(healed):
    net = healed
    net.kill("node4")
    height = int(net.faucet(net.accounts["carol"], "1 CRN")["height"])
    # A node that does not answer yet is waited for.
    restart = threading.Timer(0.5, net.restart, ["node4"])
    restart.start()
    net.await_height(height, "node4")
    restart.join()


def main():
    """Runs the tests one by one on one network, as pytest does."""
    begun = time.monotonic()
    with Testnet(nodes=4) as net:
        print(f"network started after {time.monotonic() - begun:.2f} s")
        for test in [
            test_a_transfer_is_final_on_every_node,
            test_half_a_network_makes_nothing_final,
            test_three_of_four_go_on_without_the_fourth,
        ]:
            test(net)
            net.heal()
            print(f"{test.__name__}: passed, {time.monotonic() - begun:.2f} s after the start")
        parent = net.process
    assert parent.returncode == 0, f"the network ended with {parent.returncode}"
    try:
        net.height()
    except CairnError:
        return
    raise AssertionError("a node answers after the end")


if __name__ == "__main__":
    main()
