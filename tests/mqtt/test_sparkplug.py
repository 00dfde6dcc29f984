"""Sparkplug B against the specification's own requirements, named beside each check.

What a host sees is decoded from the bytes that a real subscriber got from a real broker.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edged.core.types import Inspection, NoVerdict, Reason, Timing
from edged.wire import sparkplug
from edged.wire.pb import sparkplug_b_pb2 as pb
from tests.support.broker import Mosquitto, Subscriber, wait_until
from tests.support.sparkplug_host import TOPICS, WISH, command, heard, node, part, wait


def test_births_come_first_whole_and_in_order(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            sink.accept(part(1))
            wait(host, "DDATA")
    born = heard(host)
    kinds = [m.kind for m in born[:3]]
    assert kinds == ["NBIRTH", "DBIRTH", "DDATA"], "tck-id-payloads-dbirth-order"
    birth, device, data = born[:3]
    for message in born[:3]:
        assert message.qos == 0, "tck-id-payloads-nbirth-qos, -dbirth-qos, -ddata-qos"
        assert not message.retained, "tck-id-payloads-nbirth-retain, -dbirth-retain, -ddata-retain"
        assert message.payload.timestamp > 1_700_000_000_000, "tck-id-payloads-nbirth-timestamp"
        for metric in message.payload.metrics:
            assert metric.HasField("timestamp"), "tck-id-payloads-name-birth-data-requirement"
    assert [m.payload.seq for m in born[:3]] == [0, 1, 2], "tck-id-payloads-nbirth-seq, -seq-inc"
    rebirth = birth.metric("Node Control/Rebirth")
    assert rebirth.datatype == 11, "tck-id-operational-behavior-data-commands-rebirth-datatype"
    assert rebirth.boolean_value is False, "tck-id-...-commands-rebirth-value"
    assert not rebirth.HasField("alias"), "tck-id-...-commands-rebirth-name-aliases"
    assert birth.metric("bdSeq").datatype == 4, "tck-id-payloads-nbirth-bdseq"
    for metric in (*birth.payload.metrics, *device.payload.metrics):
        assert metric.HasField("name"), "tck-id-payloads-alias-birth-requirement"
        assert metric.HasField("datatype"), "tck-id-payloads-metric-datatype-req"
    aliases = [m.alias for b in (birth, device) for m in b.payload.metrics if m.HasField("alias")]
    assert len(aliases) == len(set(aliases)), "tck-id-payloads-alias-uniqueness"
    for metric in data.payload.metrics:
        assert not metric.HasField("name"), "tck-id-payloads-alias-data-cmd-requirement"
        assert not metric.HasField("datatype"), "tck-id-payloads-metric-datatype-not-req"
        assert metric.alias in aliases, "tck-id-topics-nbirth-metric-reqs"
    assert {m.alias for m in data.payload.metrics} == {m.alias for m in device.payload.metrics}


def test_all_values_of_a_part_travel_together(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            wait(host, "DBIRTH")
            sink.accept(part(7, good=False))
            (data,) = wait(host, "DDATA")
        names = {m.alias: m.name for m in wait(host, "DBIRTH")[0].payload.metrics}
    found = {names[m.alias].removeprefix("Inspection/"): m for m in data.payload.metrics}
    assert found["Part"].string_value == "P-7"
    assert (found["Sequence"].long_value, found["Number"].long_value) == (7, 7)
    assert (found["Ok"].boolean_value, found["Evaluation"].int_value) == (False, 2)
    assert found["Score"].float_value == pytest.approx(0.9)


def test_seq_goes_around_at_256(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            wait(host, "DBIRTH")
            for number in range(1, 401):
                sink.accept(part(number))
            wait(host, "DDATA", 400)
    numbers = [m.payload.seq for m in heard(host) if m.kind != "NDEATH"]
    assert numbers[:402] == [n % 256 for n in range(402)], "tck-id-topics-ndata-seq-num"


def test_bd_seq_is_one_more_at_each_connect_and_the_same_in_will_and_birth(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        for number in (1, 2):
            with node(tmp_path, broker.port):
                wait(host, "DBIRTH", number)
        with node(tmp_path, broker.port):
            wait(host, "NBIRTH", 3)
            broker.kill()
            assert wait_until(lambda: not host.wait_subscribed(0))
            broker.start()
            assert host.wait_subscribed(20)

            def born_again() -> bool:
                """The birth itself may have gone out before the host was back: so it asks."""
                command(broker.port, "spBv1.0/plant1/NCMD/box7", WISH)
                return len([m for m in heard(host) if m.kind == "NBIRTH"]) >= 4

            assert wait_until(born_again, 20.0)
        births = wait(host, "NBIRTH", 4)
        deaths = wait(host, "NDEATH", 3)
    born = [m.metric("bdSeq").long_value for m in births]
    assert born == sorted(set(born)), "tck-id-message-flow-edge-node-birth-publish-will-...-bdSeq"
    died = [m.metric("bdSeq").long_value for m in deaths]
    assert set(died) <= set(born), "tck-id-payloads-ndeath-bdseq"
    for message in deaths:
        assert not message.payload.HasField("seq"), "tck-id-payloads-ndeath-seq"
        assert len(message.payload.metrics) == 1, "tck-id-topics-ndeath-payload"
        assert not message.retained, "tck-id-payloads-ndeath-will-message-retain"


def test_kill_9_says_ndeath_by_the_will_with_the_birth_s_bd_seq(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        arguments = [str(tmp_path), str(broker.port)]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.sparkplug_host", *arguments],
            cwd=Path(__file__).parents[2],
        ) as process:
            (birth,) = wait(host, "NBIRTH", 1, 30.0)
            process.kill()
        (death,) = wait(host, "NDEATH")
    assert death.qos == 1, "tck-id-payloads-ndeath-will-message-qos"
    assert death.metric("bdSeq").long_value == birth.metric("bdSeq").long_value


def test_a_clean_end_says_ndeath_itself(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port):
            wait(host, "DBIRTH")
        (death,) = wait(host, "NDEATH")
        assert death.metric("bdSeq").long_value == 0
    # tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath


def test_a_rebirth_is_a_whole_birth_with_the_same_bd_seq_and_the_last_values(
    tmp_path: Path,
) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            wait(host, "DBIRTH")
            sink.accept(part(5))
            wait(host, "DDATA")
            command(broker.port, "spBv1.0/plant1/NCMD/box7", WISH)
            births = wait(host, "NBIRTH", 2)
            device = wait(host, "DBIRTH", 2)[1]
            sink.accept(part(6))
            wait(host, "DDATA", 2)
    after = heard(host)
    index = [m.kind for m in after].index("NBIRTH", 1)
    assert [m.kind for m in after[index : index + 3]] == ["NBIRTH", "DBIRTH", "DDATA"]
    assert [m.payload.seq for m in after[index : index + 3]] == [0, 1, 2]
    bd = [m.metric("bdSeq").long_value for m in births]
    assert bd[0] == bd[1], "tck-id-operational-behavior-data-commands-rebirth-action-3"
    assert device.metric("Inspection/Part").string_value == "P-5"


def test_a_station_that_is_lost_dies_and_is_born_again(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            wait(host, "DBIRTH")
            sink.set_alive("s1", False)
            (death,) = wait(host, "DDEATH")
            assert death.payload.HasField("seq"), "tck-id-payloads-ddeath-seq"
            assert death.payload.HasField("timestamp"), "tck-id-payloads-ddeath-timestamp"
            sink.set_alive("s1", True)
            wait(host, "DBIRTH", 2)
    assert {m.device for m in heard(host) if m.kind.startswith("D")} == {"s1"}


def state(online: bool, at: int) -> bytes:
    return json.dumps({"online": online, "timestamp": at}).encode()


def test_births_wait_for_the_primary_host_and_end_when_it_goes(tmp_path: Path) -> None:
    topic = "spBv1.0/STATE/scada"
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        command(broker.port, topic, state(False, 1000), retain=True)
        with node(tmp_path, broker.port, primary_host="scada") as sink:
            sink.accept(part(1))
            assert not wait_until(lambda: bool(heard(host)), 0.5), (
                "tck-id-message-flow-edge-node-birth-publish-phid-wait"
            )
            command(broker.port, topic, state(True, 2000), retain=True)
            wait(host, "DBIRTH")
            (data,) = wait(host, "DDATA")
            assert all(m.is_historical for m in data.payload.metrics)
            command(broker.port, topic, state(False, 1500))  # an old word
            sink.accept(part(2))
            wait(host, "DDATA", 2)
            command(broker.port, topic, state(False, 3000), retain=True)
            wait(host, "NDEATH")
            sink.accept(part(3))
            command(broker.port, topic, state(True, 4000), retain=True)
            again = wait(host, "DDATA", 3, 20.0)[2]
    assert again.payload.metrics[0].is_historical
    births = wait(host, "NBIRTH", 2)
    assert births[0].metric("bdSeq").long_value != births[1].metric("bdSeq").long_value


def test_what_came_while_nobody_listened_is_historical_and_bounded(tmp_path: Path) -> None:
    with Mosquitto(started=False) as broker:
        with node(tmp_path, broker.port, history=10) as sink:
            for number in range(1, 31):
                sink.accept(part(number))
            broker.start()
            with Subscriber(broker.port, TOPICS) as host:
                sink.accept(part(99))
                found = wait(host, "DDATA", 1, 20.0)
    assert len(found) <= 11


def test_2000_malformed_commands_change_nothing(tmp_path: Path) -> None:
    dice = random.Random(5)
    wish = pb.Payload(metrics=[pb.Metric(name="x", long_value=2**64 - 1)]).SerializeToString()
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            wait(host, "DBIRTH")
            client = paho.Client(CallbackAPIVersion.VERSION2)
            client.max_queued_messages_set(0)
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
            for _ in range(2000):
                data = bytearray(wish * dice.randrange(1, 4))
                data[dice.randrange(len(data))] = dice.randrange(256)
                client.publish("spBv1.0/plant1/NCMD/box7", bytes(data), 1)
            sent = client.publish("spBv1.0/plant1/NCMD/box7", b"\xff" * 100, 1)
            sent.wait_for_publish(30)
            client.disconnect()
            client.loop_stop()
            sink.accept(part(3))
            wait(host, "DDATA", 1, 30.0)
    assert len([m for m in heard(host) if m.kind == "NBIRTH"]) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"online":1,"timestamp":1}',
        b'{"online":true,"timestamp":true}',
    ],
)
def test_a_state_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(sparkplug.InvalidInput):
        sparkplug.host_state(payload)


def test_a_part_without_a_verdict_has_every_value() -> None:
    made = part(1)
    missed = Inspection(made.frame, None, NoVerdict(Reason.TIMEOUT), Timing(1))
    found = sparkplug.values(missed)
    assert found.keys() == {name for name, _ in sparkplug.DEVICE_METRICS}
    assert (found["Inspection/Ok"], found["Inspection/Code"]) == (False, Reason.TIMEOUT.code)


def numbers(host: Subscriber, kind: str) -> list[int]:
    return [m.metric("bdSeq").long_value for m in heard(host) if m.kind == kind]


def test_bd_seq_counts_connects_and_not_tries_to_get_through(tmp_path: Path) -> None:
    with Mosquitto(started=False) as broker:
        with node(tmp_path, broker.port) as sink:
            dialler = sink._broker._dialler
            assert dialler is not None
            assert wait_until(lambda: dialler._failures >= 3, 20.0)
            broker.start()
            with Subscriber(broker.port, TOPICS) as host:

                def born() -> bool:
                    command(broker.port, "spBv1.0/plant1/NCMD/box7", WISH)
                    return bool(numbers(host, "NBIRTH"))

                assert wait_until(born, 20.0)
                found = numbers(host, "NBIRTH")[0]
    assert found == 0, "tck-id-topics-nbirth-bdseq-increment"


def test_a_word_of_the_primary_host_from_before_its_end_starts_nothing(tmp_path: Path) -> None:
    topic = "spBv1.0/STATE/scada"
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        command(broker.port, topic, state(True, 2000), retain=True)
        with node(tmp_path, broker.port, primary_host="scada") as sink:
            wait(host, "NBIRTH")
            command(broker.port, topic, state(False, 3000))  # the broker still keeps the older one
            wait(host, "NDEATH")
            assert wait_until(
                lambda: sink._broker._dialler is not None and sink._broker._dialler.link is not None
            )
            assert not wait_until(lambda: len(numbers(host, "NBIRTH")) > 1, 2.0), (
                "tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp"
            )
            command(broker.port, topic, state(True, 4000), retain=True)
            wait(host, "NBIRTH", 2)


def test_without_history_nothing_is_lost_while_a_host_listens(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port, history=0) as sink:
            sink.set_alive("s2", True)
            wait(host, "DBIRTH", 2)
            for number in range(1, 21):
                sink.accept(part(number, "s1"))
                sink.accept(part(number, "s2"))
            wait(host, "DDATA", 40)


def test_what_the_broker_answers_is_not_kept(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            wait(host, "DBIRTH")
            for number in range(1, 301):
                sink.accept(part(number))
            wait(host, "DDATA", 300)
            link = sink._broker._dialler and sink._broker._dialler.link
            assert link is not None
            assert wait_until(lambda: not link.answers)


def test_aliases_of_two_devices_differ(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            sink.set_alive("s2", True)
            births = [*wait(host, "NBIRTH"), *wait(host, "DBIRTH", 2)]
    assert {birth.device for birth in births} == {"", "s1", "s2"}
    aliases = [m.alias for b in births for m in b.payload.metrics if m.HasField("alias")]
    assert len(aliases) == len(set(aliases)), "tck-id-payloads-alias-uniqueness"


def test_the_newest_of_an_outage_are_sent_as_history_after_the_births(tmp_path: Path) -> None:
    topic = "spBv1.0/STATE/scada"
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port, primary_host="scada", history=10) as sink:
            for number in range(1, 31):
                sink.accept(part(number))
                assert wait_until(lambda: not sink._inbox._queue)
            command(broker.port, topic, state(True, 1))
            wait(host, "DDATA", 10)
    seen = [m for m in heard(host) if m.kind == "DDATA"]
    index = next(m.alias for m in wait(host, "DBIRTH")[0].payload.metrics if "Seq" in m.name)
    request = [x.long_value for m in seen for x in m.payload.metrics if x.alias == index]
    assert request == list(range(21, 31))
    assert all(x.is_historical for m in seen for x in m.payload.metrics)


def test_many_wishes_for_a_rebirth_are_one(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, TOPICS) as host:
        with node(tmp_path, broker.port) as sink:
            wait(host, "DBIRTH")
            for _ in range(20):
                command(broker.port, "spBv1.0/plant1/NCMD/box7", WISH)
            wait(host, "DBIRTH", 2)
            sink.accept(part(1))
            wait(host, "DDATA")
    assert len(numbers(host, "NBIRTH")) <= 3


def test_the_will_is_not_retained(tmp_path: Path) -> None:
    with Mosquitto() as broker:
        with Subscriber(broker.port, TOPICS) as host:
            arguments = [str(tmp_path), str(broker.port)]
            with subprocess.Popen(
                [sys.executable, "-m", "tests.support.sparkplug_host", *arguments],
                cwd=Path(__file__).parents[2],
            ) as process:
                wait(host, "NBIRTH", 1, 30.0)
                process.kill()
            wait(host, "NDEATH")
        with Subscriber(broker.port, TOPICS, "end") as late:
            command(broker.port, "end", b"")
            late.wait_for(1, topic="end")  # what is retained would have come before it
            assert late.of("box7") == [], "tck-id-payloads-ndeath-will-message-retain"
