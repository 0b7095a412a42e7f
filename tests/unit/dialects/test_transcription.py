"""The fields of a transcription's form, one by one as they come."""

import pytest

from shared.dialects.transcription import Fields
from shared.errors import InvalidRequest


def fields(*given: tuple[str, str]) -> Fields:
    made = Fields()
    for name, value in given:
        made.add(name, value)
    return made


def test_the_provider_gets_everything_but_the_model_and_what_is_ours() -> None:
    made = fields(("model", "m"), ("language", "de"), ("ollm::tags", '{"a":"b"}'), ("x", "y"))
    assert made.fresh() == (("language", "de"), ("x", "y"))


def test_what_came_later_is_taken_apart() -> None:
    made = fields(("prompt", "p"))
    assert made.fresh() == (("prompt", "p"),)
    made.add("model", "m")
    made.add("language", "de")
    assert made.fresh() == (("language", "de"),)
    assert made.fresh() == ()


def test_the_gateways_own_fields_are_read() -> None:
    request = fields(
        ("model", "m"), ("ollm::tags", '{"team":"a"}'), ("ollm::dryrun", "true")
    ).request()
    assert (request.model, request.tags, request.dryrun) == ("m", {"team": "a"}, True)


def test_a_list_may_be_given_item_by_item() -> None:
    made = fields(("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment"))
    assert len(made.fresh()) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", "mp3"),
        ("response_format", ""),
        ("temperature", "warm"),
        ("temperature", "nan"),
        ("temperature", "1_0"),
        ("temperature", "1e400"),
        ("stream", "true"),
        ("ollm::dryrun", "yes"),
        ("ollm::deny_unknown_fields", "1"),
        ("file", "text"),
    ],
)
def test_a_wrong_value_is_refused_as_soon_as_it_comes(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fields((name, value))
    assert refused.value.param == name


def test_a_field_that_stands_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        fields(("model", "a"), ("model", "b"))
    assert refused.value.param == "model"


@pytest.mark.parametrize("tags", ["{", "[1]", '{"a": 1}', "1"])
def test_wrong_tags_are_refused(tags: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fields(("model", "m"), ("ollm::tags", tags)).request()
    assert str(refused.value.param).startswith("ollm::tags")


@pytest.mark.parametrize("model", [(), (("model", ""),), (("model", " "),)])
def test_a_form_without_a_model_is_refused(model: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fields(*model).request()
    assert refused.value.param == "model"


def test_unknown_fields_pass_unless_they_are_denied() -> None:
    fields(("model", "m"), ("x", "y")).deny_unknown()
    with pytest.raises(InvalidRequest) as refused:
        fields(("ollm::deny_unknown_fields", "true"), ("x", "y")).deny_unknown()
    assert refused.value.param == "x"


@pytest.mark.parametrize("name", ["Model", "MODEL[]", "model ", " model", "model[]"])
def test_a_name_that_another_reader_takes_for_the_models_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        fields(("model", "m"), (name, "other"))


@pytest.mark.parametrize("name", ["ollm::dryrun", "ollm::tags", "ollm::anything"])
def test_what_is_for_the_gateway_comes_too_late_after_the_admission(name: str) -> None:
    made = fields(("model", "m"))
    made.request()
    made.add("language", "de")
    with pytest.raises(InvalidRequest) as refused:
        made.add(name, "true")
    assert refused.value.param == name


def test_tags_may_come_one_by_one_as_openais_clients_write_an_object() -> None:
    made = fields(("model", "m"), ("ollm::tags[team]", "a"), ("ollm::tags[b]", "c"))
    made.add("ollm::deny_unknown_fields", "true")
    made.deny_unknown()
    assert made.request().tags == {"team": "a", "b": "c"}
    assert made.fresh() == ()


def test_a_user_that_is_billed_stays_here_and_a_label_goes_on() -> None:
    for is_billed, passed_on in ((True, ()), (False, (("user", "ann"),))):
        made = fields(("model", "m"), ("user", "ann"))
        assert made.request(selector_is_billed=is_billed).user == "ann"
        assert made.fresh() == passed_on


def test_a_user_that_is_billed_must_be_named_before_the_file() -> None:
    made = fields(("model", "m"))
    made.request(selector_is_billed=True)
    with pytest.raises(InvalidRequest) as refused:
        made.add("user", "ann")
    assert refused.value.param == "user"
    label = fields(("model", "m"))
    label.request()
    label.add("user", "ann")
    assert label.fresh() == (("user", "ann"),)
