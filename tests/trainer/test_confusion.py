"""Which class is taken for which, and what crowds leave out."""

import numpy as np

from trainer.confusion import confusion_matrix

TRUTH = [np.array([[10, 10, 30, 30, 0.0], [50, 50, 90, 90, 1]])]
FOUND = [
    np.array(
        [
            [10, 10, 30, 29, 0.9, 0],  # right
            [50, 52, 90, 90, 0.8, 0],  # taken for another
            [60, 10, 70, 20, 0.7, 1],  # nothing is there
            [60, 10, 70, 20, 0.2, 0],  # not sure enough
        ],
        np.float32,
    )
]


def test_predictions_are_paired_with_labels_whatever_their_class():
    assert confusion_matrix(TRUTH, FOUND, 2).tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_what_is_left_over_in_a_crowd_of_its_class_is_not_counted():
    own, another = (np.array([[55, 5, 100, 16, label]], float) for label in (1, 0))
    assert confusion_matrix(TRUTH, FOUND, 2, [own])[1, 2] == 0
    assert confusion_matrix(TRUTH, FOUND, 2, [another])[1, 2] == 1
    small = np.array([[55, 5, 64, 16, 1.0]])  # two fifths of it
    assert confusion_matrix(TRUTH, FOUND, 2, [small])[1, 2] == 1


def test_nothing_there_and_nothing_found_is_a_matrix_of_zeros():
    empty = [np.zeros((0, 5))], [np.zeros((0, 6), np.float32)]
    assert not confusion_matrix(*empty, 2).any()
    assert confusion_matrix(TRUTH, empty[1], 2).tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]
