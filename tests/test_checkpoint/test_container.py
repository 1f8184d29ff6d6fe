"""Weights are found wherever training codes put them."""
import argparse

import pytest
import torch

from shiftwise_mm.checkpoint import open_container

WEIGHTS = {'stages.0.0.gamma': torch.ones(3)}
OTHER = {'stages.0.0.gamma': torch.zeros(3)}


@pytest.mark.parametrize('name', ['state_dict', 'model', 'model_ema'])
def test_containers(name):
    opened = open_container({'epoch': 3, name: WEIGHTS})
    assert opened.state_dict == WEIGHTS
    assert opened.container == name and opened.args is None


def test_bare():
    opened = open_container(WEIGHTS)
    assert opened.state_dict == WEIGHTS
    assert opened.state_dict is not WEIGHTS
    assert opened.container == ''


def test_the_first_is_taken_unless_another_is_asked_for():
    checkpoint = dict(model_ema=OTHER, model=WEIGHTS)
    assert open_container(checkpoint).container == 'model'
    opened = open_container(checkpoint, 'model_ema')
    assert opened.container == 'model_ema'
    assert not opened.state_dict['stages.0.0.gamma'].any()


def test_a_container_without_tensors_is_passed_over():
    checkpoint = dict(state_dict={}, model='tiny', model_ema=WEIGHTS)
    assert open_container(checkpoint).container == 'model_ema'


@pytest.mark.parametrize('args, expected', [
    (argparse.Namespace(N_rep=4), dict(N_rep=4)),
    (dict(N_rep=4), dict(N_rep=4)), ('N_rep=4', None), (None, None)])
def test_args(args, expected):
    assert open_container(dict(model=WEIGHTS, args=args)).args == expected


@pytest.mark.parametrize('checkpoint, container, error, words', [
    ([WEIGHTS], None, TypeError, 'mapping.*list'),
    ({}, None, ValueError, 'no weights.*holds: nothing'),
    (dict(epoch=3, optimizer={}), None, ValueError,
     'no weights under state_dict or model or model_ema.*epoch, optimizer'),
    (dict(model=WEIGHTS), 'model_ema', ValueError,
     'no weights under model_ema.*holds: model'),
    (dict(model=WEIGHTS), 'weights', ValueError,
     "container.*'state_dict', 'model', 'model_ema'.*'weights'"),
    ({1: torch.ones(1)}, None, ValueError, 'no weights.*holds: 1'),
])
def test_errors_name_what_was_found(checkpoint, container, error, words):
    with pytest.raises(error, match=words):
        open_container(checkpoint, container)
