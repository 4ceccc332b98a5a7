"""What ``shadow workspace exec`` says of a workspace that ends under it."""

import pytest

from shadow.cli.watching_over import telling_of_its_end
from shadow.core.errors import NotFound, OutcomeUnknown, Unavailable

pytestmark = pytest.mark.anyio


class Ends:
    """A workspace whose end shows only after some looks at it."""

    def __init__(self, *, after_looks: int) -> None:
        self.looks_left = after_looks

    async def check(self) -> None:
        self.looks_left -= 1
        if self.looks_left < 0:
            raise OutcomeUnknown("The workspace ended.")


@pytest.mark.parametrize("first_sign", [OutcomeUnknown("The holder went away."), Unavailable("Refused.")])
async def test_an_end_that_shows_a_moment_later_is_what_is_told(first_sign: OutcomeUnknown | Unavailable):
    with pytest.raises(OutcomeUnknown, match="The workspace ended"):
        async with telling_of_its_end(Ends(after_looks=3).check):
            raise first_sign


async def test_where_nothing_ended_the_error_itself_is_told():
    with pytest.raises(Unavailable, match="Refused"):
        async with telling_of_its_end(Ends(after_looks=1000).check):
            raise Unavailable("Refused.")


async def test_an_answer_of_the_workspace_is_told_without_a_look():
    workspace = Ends(after_looks=0)
    with pytest.raises(NotFound):
        async with telling_of_its_end(workspace.check):
            raise NotFound("There is no such command.")
    assert workspace.looks_left == 0
