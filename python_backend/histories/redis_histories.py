"""A store of histories in Redis: a list for each user, which any program can read and write.

nann:history:USER   a list, oldest first: "TIME:ITEM", the time in microseconds since 1970
nann:profile:USER   a text: the codes of the user's profile, with commas between them; only where there is one
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nann.errors import HistoryError
from nann.histories import Events, UserHistory

from ..redis_connection import RedisError, open_redis

_HISTORY, _PROFILE = b"nann:history:", b"nann:profile:"
_USERS_AT_ONCE = 500
"""Of one round trip when behaviours are added."""

# As `nann.histories.merged`, in one step that no other writer can come between. The usual case, where all are newer
# than what is stored, reads one entry alone. An entry of the same time and item is the same text, so texts are counted.
# What another program wrote without a time counts as the oldest.
_APPEND = """
local key, limit = KEYS[1], tonumber(ARGV[1])
local function time(entry) return tonumber(string.match(entry, '^-?%d+')) or 0 end
local function push(entries, first)
  for start = first, #entries, 1000 do
    redis.call('RPUSH', key, unpack(entries, start, math.min(start + 999, #entries)))
  end
end
local newest = redis.call('LINDEX', key, -1)
if not newest or time(newest) < time(ARGV[2]) then
  push(ARGV, math.max(2, #ARGV - limit + 1))
  redis.call('LTRIM', key, -limit, -1)
  return math.min(#ARGV - 1, limit)
end
local old, have, extra = redis.call('LRANGE', key, 0, -1), {}, {}
local oldest = #old >= limit and time(old[1]) or nil
for _, entry in ipairs(old) do have[entry] = (have[entry] or 0) + 1 end
for place = 2, #ARGV do
  local entry = ARGV[place]
  if not oldest or time(entry) > oldest then
    if (have[entry] or 0) > 0 then have[entry] = have[entry] - 1 else extra[#extra + 1] = entry end
  end
end
if #extra == 0 then return 0 end
local both, is_new, a, b = {}, {}, 1, 1
while a <= #old or b <= #extra do
  if b > #extra or (a <= #old and time(old[a]) <= time(extra[b])) then
    both[#both + 1] = old[a]
    a = a + 1
  else
    both[#both + 1] = extra[b]
    is_new[#both] = true
    b = b + 1
  end
end
local first, added = math.max(1, #both - limit + 1), 0
for place = first, #both do if is_new[place] then added = added + 1 end end
redis.call('DEL', key)
push(both, first)
return added
"""


class RedisHistories:
    """The histories in a Redis.

    Args:
        url: see `open_redis`.
        timeout_s: of connecting, and of each answer.
        limit: newest behaviours of a user that are read, and kept when others are added.

    Raises:
        ConfigError: if the URL can't be used.
    """

    def __init__(self, url: str, timeout_s: float, limit: int) -> None:
        self._client = open_redis(url, timeout_s=timeout_s)
        self._append = self._client.register_script(_APPEND)
        self._limit = limit

    def read(self, user_ids: Sequence[bytes]) -> list[UserHistory | None]:
        """What the store has of each user, in one round trip; None: it does not know the user.

        A key that is no list, or a profile that can't be read, is that user's loss alone.

        Raises:
            HistoryError: if it does not answer in time.
        """
        pipeline = self._client.pipeline(transaction=False)
        for user in user_ids:
            pipeline.lrange(_HISTORY + user, -self._limit, -1)
        pipeline.mget([_PROFILE + user for user in user_ids])
        try:
            *lists, profiles = pipeline.execute(raise_on_error=False)
        except RedisError as error:
            raise HistoryError(f"Redis can't be asked for histories: {error}") from error
        if failed := next(
            (one for one in (*lists, profiles) if isinstance(one, RedisError) and not _no_list(one)), None
        ):
            raise HistoryError(f"Redis can't be asked for histories: {failed}") from failed
        return [_history(entries, profile) for entries, profile in zip(lists, profiles, strict=True)]

    def append(self, events: Events) -> int:
        """Adds behaviours as `nann.histories.merged` says, 500 users in a round trip; returns how many are new.

        Raises:
            HistoryError: if it does not answer in time; sent again, what was added already is not added twice. After
                all others were added, if a user's key holds something else than a list.
        """
        added, refused = 0, list[bytes]()
        for first in range(0, len(events.users), _USERS_AT_ONCE):
            some = events.some(first, min(first + _USERS_AT_ONCE, len(events.users)))
            added += self._append_some(some, refused)
        if refused:
            key = (_HISTORY + refused[0]).decode()
            raise HistoryError(
                f"{len(refused):,} users' keys are no lists, the first is {key!r}: they got no "
                f"behaviours; the others got {added:,} new ones. Delete these keys and send the behaviours again"
            )
        return added

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def _append_some(self, events: Events, refused: list[bytes]) -> int:
        """Adds to `refused` the users whose key is no list."""
        pipeline, sent = self._client.pipeline(transaction=False), list[bytes]()
        for user, stored in events.each():
            entries = [b"%d:%b" % event for event in stored[-self._limit :]]
            if entries:
                self._append([_HISTORY + user], [self._limit, *entries], client=pipeline)
                sent.append(user)
        if events.profiles is not None:
            codes = (",".join(map(str, row)) for row in events.profiles.tolist())
            pipeline.mset({_PROFILE + user: text for user, text in zip(events.users, codes, strict=True)})
        try:
            answers = pipeline.execute(raise_on_error=False)
            if failed := next((one for one in answers if isinstance(one, RedisError) and not _no_list(one)), None):
                raise failed
        except RedisError as error:
            raise HistoryError(
                f"Redis does not take the behaviours: {error}; send them again: none is added twice"
            ) from error
        refused += [user for user, one in zip(sent, answers, strict=False) if isinstance(one, RedisError)]
        return sum(one for one in answers[: len(sent)] if not isinstance(one, RedisError))


def _no_list(error: RedisError) -> bool:
    """Whether a user's key holds another type: what one other program wrote wrongly must not cost all users theirs."""
    return "WRONGTYPE" in str(error)


def _history(entries: list[bytes] | RedisError, profile: bytes | None) -> UserHistory | None:
    if isinstance(entries, RedisError):
        entries = []
    codes = None if profile is None else _codes(profile)
    if not entries and codes is None:
        return None
    return UserHistory(np.array([entry.partition(b":")[2] for entry in entries], object), codes)


def _codes(profile: bytes) -> npt.NDArray[np.int32] | None:
    """Codes of a profile; None: they can't be read."""
    try:
        return np.array(profile.split(b","), "S").astype(np.int32)
    except (ValueError, OverflowError):
        return None
