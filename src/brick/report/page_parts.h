// Small pieces that the page's sections share.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "brick/report/page_data.h"
#include "brick/report/page_html.h"

namespace brick::report {

Html section(std::string_view id, std::string_view heading, const Html& inside);
Html chart(const nlohmann::json& charts, std::string_view name, std::string_view label, const Html& caption);

// A formatted number, or "not measured" in a quiet tone.
Html cell(std::optional<double> value, const std::function<std::string(double)>& format);
Html loss_cell(std::optional<double> loss);
Html text_cell(const std::string& text);  // a name from a file

Html block_cell(const Palette& palette, std::optional<double> sparsity);  // with its colour
Html office_cell(const nlohmann::json& client);
Html interval_cell(const Comparison& comparison);  // mean above its interval
Html verdict_cell(const Comparison& comparison);
Html block_legend(const nlohmann::json& run, const Palette& palette);

}  // namespace brick::report
