"""A bell with the number of unread notifications, the same on all devices of a person."""

from fastapi import FastAPI, Request

from examples.house import Example, run


def add_routes(app: FastAPI) -> None:
    """Take orders: each is told to the person who ordered."""

    @app.post("/orders/{order}")
    async def pay(order: str, user: str, request: Request) -> dict[str, str]:
        # The order's own id: posting it twice tells the person once.
        event = await request.app.state.producer.post(
            "order.paid", users=[user], id=f"order-{order}-paid", data={"order": order}
        )
        return {"event": event}


EXAMPLE = Example("notifications", add_routes)

if __name__ == "__main__":
    run(EXAMPLE)
