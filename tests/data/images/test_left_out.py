from vaegan.data.images.decoding import SUFFIXES
from vaegan.data.images.left_out import UNREAD_SUFFIXES, LeftOutFile, summarize


def test_summary_is_one_line_by_reason_and_suffix():
    files = [LeftOutFile(f"a/{i}.heic", "unsupported formats") for i in range(3)]
    files += [LeftOutFile("b/1.SVG", "unsupported formats")]
    files += [LeftOutFile(".thumbnails/1.jpg", "thumbnails")]
    expected = "unsupported formats: 4 (.heic 3, .svg 1); thumbnails: 1 (.jpg 1)"
    assert summarize(files) == expected
    assert summarize([]) == ""


def test_a_format_that_is_read_does_not_count_as_unread():
    assert not SUFFIXES & UNREAD_SUFFIXES
