"""docs/model_zoo.md is what the metafiles say."""
import re

import pytest
import yaml
from helpers import ROOT

from shiftwise_mm.cli.list_models import main
from shiftwise_mm.zoo.page import SOURCES, TASKS, model_zoo_page

PAGE = (ROOT / 'docs/model_zoo.md').read_text('utf-8')


def test_the_page_is_up_to_date(capsys):
    """To mend it: shiftwise list-models --zoo > docs/model_zoo.md."""
    assert model_zoo_page(ROOT / 'configs') == PAGE
    main(['--zoo'])
    assert capsys.readouterr().out == PAGE


def test_every_config_has_a_row_and_a_link_that_leads_to_it():
    links = re.findall(r'^\| \[(.+?)\]\((.+?)\)', PAGE, re.M)
    folders = [folder for folders in TASKS.values() for folder in folders]
    assert sorted(folders) == sorted(
        p.name for p in (ROOT / 'configs').iterdir() if p.is_dir())
    assert sorted(link for _, link in links) == sorted(
        f'../configs/{folder}/{file.name}' for folder in folders
        for file in (ROOT / 'configs' / folder).glob('*.py'))
    for name, link in links:
        assert (ROOT / 'docs' / link).is_file() and f'/{name}.py' in link


def test_every_figure_of_a_metafile_is_there_with_its_mark():
    count = 0
    for file in ROOT.glob('configs/*/metafile.yml'):
        for model in yaml.safe_load(file.read_text('utf-8'))['Models']:
            row, = re.findall(
                rf'^\| \[{model["Name"]}\]\(\.\./configs/{file.parent.name}/'
                '.*', PAGE, re.M)
            for result in model.get('Results', []):
                for value in result['Metrics'].values():
                    assert f'| {value} ({SOURCES[result["Source"]]}) |' in row
                    count += 1
    assert count == len(re.findall(
        r'\((?:published|converted|measured)[^)]*\) \|', PAGE)) > 20
    assert f'Of {count} figures' in PAGE


@pytest.mark.parametrize('source', [None, 'somewhere'])
def test_a_figure_without_a_source_is_an_error(tmp_path, source):
    for folders in TASKS.values():
        for folder in folders:
            (tmp_path / folder).mkdir()
            (tmp_path / folder / 'metafile.yml').write_text(yaml.safe_dump(
                dict(Collections=[dict(Name='A', Paper=dict(URL='u'))],
                     Models=[dict(Name='m', **{'In Collection': 'A'},
                                  Metadata={'Parameters (M)': 1.},
                                  Results=[dict(Metrics=dict(AP=1.),
                                                Source=source)])])))
    with pytest.raises(ValueError, match=f'm has figures with Source '
                                         f'{source!r}'):
        model_zoo_page(tmp_path)
