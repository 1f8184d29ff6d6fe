"""The Chinese page of the model zoo has the tables of the English one."""
import re

from helpers import ROOT

ENGLISH, CHINESE = (
    (ROOT / name).read_text('utf-8')
    for name in ('docs/model_zoo.md', 'docs/zh_CN/model_zoo.md'))
WORDS = {
    '../configs/': '../../configs/',
    '(published': '(已发布',
    '(converted)': '(转换所得)',
    '(measured here)': '(在此测得)',
    '| config | network | parameters (M) |': '| 配置 | 网络 | 参数量 (M) |',
    '| box AP |': '| 边界框 AP |',
    '| box AP50 |': '| 边界框 AP50 |',
    '| mask AP |': '| 掩码 AP |',
    '| Top 1 Accuracy |': '| Top 1 准确率 |',
    '| mIoU (multi-scale) |': '| mIoU（多尺度） |',
}


def rows_of(text):
    return re.findall(r'^\|.*\|$', text, re.M)


def test_its_tables_are_those_of_the_english_page():
    """What changes in a metafile has to be changed on both pages."""
    expected = rows_of(ENGLISH)
    for word, translated in WORDS.items():
        expected = [row.replace(word, translated) for row in expected]
    assert rows_of(CHINESE) == expected


def test_it_counts_the_same_figures():
    """The sentence that says how many figures come from where."""
    line, = re.findall(r'^Of .*\.$', ENGLISH, re.M)
    numbers = re.findall(r'\d+', line)
    assert len(numbers) == 4
    line, = re.findall(r'^在 .*个数字中.*', CHINESE, re.M)
    assert re.findall(r'\d+', line) == numbers
