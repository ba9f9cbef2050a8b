from notifier.adapters.memory_broker import MemoryBroker
from notifier.adapters.memory_queue import MemoryEventQueue
from notifier.telemetry.traces import traces


async def test_without_traces_the_adapters_are_used_as_they_are() -> None:
    queue, broker = MemoryEventQueue(), MemoryBroker()

    async with traces("router", wanted=False) as untraced:
        assert untraced.queue(queue) is queue
        assert untraced.source(queue) is queue
        assert untraced.broker(broker) is broker
