"""What happens to a reservation without its tenant's doing: it is released, paid back, told of, and never dropped."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from sekisho.capacity import store
from sekisho.capacity.authority import release
from sekisho.capacity.faults import Finished
from sekisho.capacity.grid import current_slot
from sekisho.capacity.model import Body, Notice, Reservation, State, Waiting, Wanted

# Why, in both languages: the reservation's version has the first, the notice both.
NEEDED = ("firm work needs the GPUs", "優先度の高い予約がその GPU を必要としています")
FAILED = ("its site failed", "拠点に障害が発生しました")
NO_SHOW = ("nobody came within two hours", "開始から 2 時間以内に利用が始まりませんでした")
SMALLER = ("its pool has fewer GPUs", "プールの GPU 数が減りました")
MAINTENANCE = ("its pool is maintained", "プールの保守が行われます")
Why = tuple[str, str]


def displace(
    connection: sa.Connection,
    held: Reservation,
    *,
    now: float,
    who: str,
    why: Why,
    new_id: Callable[[], str],
    state: State = "displaced",
) -> None:
    """Takes the GPUs away, pays back what was not used, says so, and puts the wish on the waitlist.

    A no-show (`state`) gets nothing back and waits for nothing: nobody wanted it.
    """
    release(connection, held.id)
    body = held.body
    left = max(body.until - max(current_slot(now), body.first), 0)
    refund = body.price_yen * left // (body.until - body.first) if state == "displaced" else 0
    after = msgspec.structs.replace(body, state=state, refund_yen=body.refund_yen + refund)
    store.replace(connection, held, after, now=now, who=who, why=why[0])
    waits = state == "displaced" and left > 0
    en = f"Reservation {held.id} lost its GPUs: {why[0]}. Refunded: {refund} yen."
    ja = f"予約 {held.id} の GPU は解放されました。理由：{why[1]}。返金額：{refund} 円。"
    if waits:
        en += " The wish is on the waitlist."
        ja += "希望はキャンセル待ちに登録しました。"
    tell(connection, held, now=now, kind=state, en=en, ja=ja)
    if waits:
        store.insert_waiting(connection, Waiting(id=new_id(), at_ms=int(now * 1000), wanted=wish_of(body, now=now)))


def tell(connection: sa.Connection, held: Reservation, *, now: float, kind: str, en: str, ja: str) -> None:
    """A notice to the tenant, in the transaction of what it tells."""
    notice = Notice(tenant=held.body.tenant, reservation=held.id, at_ms=int(now * 1000), kind=kind, en=en, ja=ja)
    store.notify(connection, notice)


def wish_of(body: Body, *, now: float) -> Wanted:
    """What a reservation was made for, for as long as is left of it, from the next slot on."""
    first = max(body.first, current_slot(now) + 1)
    return Wanted(
        tenant=body.tenant,
        data_class=body.data_class,
        gpu_models=body.gpu_models,
        gpus=body.gpus,
        gpus_min=min(body.gpus_min, body.gpus),
        first=first,
        latest=first,
        slots=max(body.until - first, 1),
        sites=body.sites,
        spread=body.spread,
        priority=body.priority,
        note=body.note,
    )


def still_open(held: Reservation, *, version: int | None) -> Body:
    """Its body when it may still change and is the version that the caller read."""
    if version is not None and version != held.version:
        raise store.stale(held.id)
    if held.body.state != "booked":
        raise Finished(
            f"{held.id} is {held.body.state}",
            hint="book a new one",
            fact_ja=f"予約 {held.id} はすでに終わっています（{held.body.state}）",
            hint_ja="新しく予約してください",
        )
    return held.body
