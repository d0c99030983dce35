// The best items of one user, with nothing but Java 17 or later: java Ask.java http://127.0.0.1:8000 1082185 995242
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.Arrays;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class Ask {
  public static void main(String[] arguments) throws Exception {
    String[] history = Arrays.copyOfRange(arguments, 1, arguments.length);
    String body =
        """
        {"inputs": [{"name": "behavior_item_ids", "datatype": "INT64", "shape": [1, %d], "data": [%s]}],
         "outputs": [{"name": "item_ids"}, {"name": "scores"}],
         "parameters": {"top_k": 10, "deadline_ms": 1800}}
        """
            .formatted(history.length, String.join(", ", history));
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(arguments[0] + "/v2/models/nann/infer"))
            .timeout(Duration.ofSeconds(2))
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
    HttpClient client = // Triton speaks HTTP 1.1; keep the client, so that requests share its connections
        HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
    if (response.statusCode() != 200) { // 503: send it again, after a wait; 400: change the request
      throw new IllegalStateException(response.statusCode() + ": " + response.body());
    }
    String[] items = tensor(response.body(), "item_ids");
    String[] scores = tensor(response.body(), "scores");
    for (int place = 0; place < items.length && !items[place].equals("-1"); place++) { // -1 is padding
      System.out.println(items[place] + " " + scores[place]);
    }
  }

  /** The data of one tensor of the answer. In a program of your own, read the JSON with your library. */
  private static String[] tensor(String answer, String name) {
    Matcher found = Pattern.compile("\"name\":\"" + name + "\"[^}]*\"data\":\\[([^\\]]*)\\]").matcher(answer);
    if (!found.find()) {
      throw new IllegalStateException("no " + name + " in " + answer);
    }
    return found.group(1).split(",");
  }
}
